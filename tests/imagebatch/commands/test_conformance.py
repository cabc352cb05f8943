"""The command that holds any server to the contract: its table, its files, its exit code."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.model_server import ModelServer, Wrong
from tests.support.protocol_server import Habits, ProtocolServer


def refusing(files: list[bytes]) -> Wrong | None:
    """Answer 500 to what is no image."""
    try:
        for data in files:
            Image.open(io.BytesIO(data)).load()
    except OSError:
        return Wrong(500, b"<script>cannot</script> read | it")
    return None


@pytest.fixture
def oip() -> Iterator[ProtocolServer]:
    with ProtocolServer(Habits()) as running:
        running.faults = refusing
        yield running


def test_a_server_that_keeps_the_contract(call: Call, oip: ProtocolServer, tmp_path: Path) -> None:
    """Code 0, a line for each check with its reason where it was skipped, and the same as JSON."""
    out = tmp_path / "report.json"
    outcome = call("conformance", "--backend", "oip", "--api-url", oip.url, "--out", out)
    assert (outcome.code, outcome.last) == (
        0,
        {"stage": "conformance", "passed": 9, "failed": 0, "skipped": 1, "out": str(out)},
    )
    assert "restart        skipped" in outcome.out
    assert "(--restart-command)" in outcome.out
    told = json.loads(out.read_text())
    assert [told["passed"], told["skipped"], len(told["checks"])] == [9, 1, 10]
    assert told["model"]["digest"] == oip.digest
    assert {check["outcome"] for check in told["checks"]} == {"passed", "skipped"}
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]  # nothing is left beside it


def test_a_server_that_does_not(call: Call, oip: ProtocolServer, tmp_path: Path) -> None:
    """Code 65 names the checks; the page for the maker escapes what the server said, and has no password."""
    oip.faults = lambda files: Wrong(503, b"the model said <script>|`x`, or so") if refusing(files) else None
    page = tmp_path / "report.md"
    address = oip.url.replace("http://", "http://me:secret@")
    outcome = call("conformance", "--backend", "oip", "--api-url", address, "--out", page)
    assert outcome.code == 65
    assert outcome.err.splitlines()[-1].startswith("imagebatch: 2 of 10 checks failed: refused alone (")
    assert outcome.err.splitlines()[-1].endswith(", garbage")
    text = page.read_text()
    assert r"HTTP 503 the model said \<script\>\|\`x\`, or so" in text
    assert "secret" not in text + outcome.out
    assert oip.url in outcome.out


def test_a_model_of_two_classes_is_asked_for_two(call: Call, server: ModelServer) -> None:
    """Fewer than --top-k: as in a run, it is not a server that answers too little."""
    server.labels = server.labels[:2]
    outcome = call("conformance", "--api-url", server.url, "--most", 0)
    assert "the model reads 0 of" not in outcome.err
    assert "counted        passed" in outcome.out


def test_no_check_is_answered_out_of_the_cache(
    call: Call, oip: ProtocolServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation has a variable for it: this run, like those of bench, asks the server."""
    monkeypatch.setenv("IMAGEBATCH_CACHE", str(tmp_path / "cache"))
    assert call("conformance", "--backend", "oip", "--api-url", oip.url, "--most", 0).code == 0
    assert not (tmp_path / "cache").exists()


def test_a_blank_restart_command_is_none(call: Call, oip: ProtocolServer) -> None:
    """As an unset variable of a template leaves it: nothing is restarted, and no traceback."""
    outcome = call(
        "conformance", "--backend", "oip", "--api-url", oip.url, "--most", 0, "--restart-command", " "
    )
    assert (outcome.code, outcome.last["skipped"]) == (0, 2)


def test_images_of_the_user(call: Call, oip: ProtocolServer, images: Path) -> None:
    """Those that the model reads are asked about; with fewer than two of them nothing can be said."""
    (images / "000.png").write_bytes(b"no image")
    asked = ("conformance", "--backend", "oip", "--api-url", oip.url, "--input", images, "--limit", 12)
    outcome = call(*asked, "--most", 0)
    assert (outcome.code, outcome.last["skipped"]) == (0, 2)
    assert "requests of 1, 2, 3, 11 images" in outcome.out
    oip.faults = lambda files: None if len(files) == 1 and len(files[0]) > 900 else Wrong(500)
    outcome = call(*asked)
    assert (outcome.code, "give some that it can read by --input" in outcome.err) == (78, True)


def test_how_hard_a_server_is_driven(call: Call, oip: ProtocolServer) -> None:
    """Never more at once, and no larger request, than was asked for."""
    limits = ("--most", 1, "--largest", 1, "--limit", 5)
    assert call("conformance", "--backend", "oip", "--api-url", oip.url, *limits).code == 0
    assert max(oip.packs) == 5


def test_a_restart_is_the_users_own_command(call: Call, oip: ProtocolServer, tmp_path: Path) -> None:
    """It runs once, without a shell; one that fails fails the check with its words."""
    mark = tmp_path / "restarted $(id)"
    touch = f"{sys.executable} -c \"import pathlib, sys; pathlib.Path(sys.argv[1]).touch()\" '{mark}'"
    asked = ("conformance", "--backend", "oip", "--api-url", oip.url, "--limit", 3)
    outcome = call(*asked, "--restart-command", touch)
    assert (outcome.code, outcome.last["skipped"], mark.exists()) == (0, 0, True)
    outcome = call(*asked, "--restart-command", "ls /nowhere")
    assert (outcome.code, "--restart-command ended with 2: ls:" in outcome.err) == (65, True)
    outcome = call(*asked, "--restart-command", "echo 'half")
    assert (outcome.code, "not a command line" in outcome.err) == (2, True)


def test_what_ends_before_the_first_check(call: Call, server: ModelServer, tmp_path: Path) -> None:
    """A file that cannot be written, a model that is not there, a server that is not: each its own code."""
    assert call("conformance", "--out", tmp_path / "none" / "x.json").code == 74
    assert call("conformance", "--model", "nothing").code == 78
    assert call("conformance", "--api-url", "http://127.0.0.1:1").code == 69
    assert not server.requests
    assert not list(tmp_path.glob("*.json"))


def test_a_seed_of_its_own_is_no_image() -> None:
    """What the tests call an image is one to the decoder."""
    assert refusing([jpeg(1)]) is None
    assert refusing([b"text"])
