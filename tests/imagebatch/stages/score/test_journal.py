"""What a killed attempt leaves of its unfinished parts: used if it is whole and fits, else asked again."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from imagebatch.runs.folder import open_run
from imagebatch.stages.score.journal import Journal

from tests.support.calls import Call
from tests.support.model_server import Images, ModelServer

Row = dict[str, Any]


@pytest.fixture
def interrupted(call: Call, images: Path, runs: Path, server: ModelServer) -> Path:
    """The journal of an attempt that had 24 of its 40 images answered when its key was refused."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0

    def lock(number: int, _images: object) -> None:
        server.key = "secret" if number == 3 else server.key

    server.faults = lock
    assert call("score", "--run-id", "r", "--pack-size", 8, "--in-flight", 1).code == 78
    server.key = ""
    server.images.clear()
    (journal,) = runs.glob("r/scores/*/journal-00000-attempt-00001.jsonl")
    assert len(journal.read_bytes().splitlines()) == 3
    return journal


def resumed(call: Call, server: ModelServer) -> int:
    """Goes on, and says how many images were not asked about again."""
    outcome = call("score", "--run-id", "r")
    assert (outcome.code, outcome.last["predicted"]) == (0, 40)
    assert len(server.images) == 40 - outcome.last["resumed"]
    return int(outcome.last["resumed"])


def test_whole_lines_are_used(call: Call, interrupted: Path, server: ModelServer) -> None:
    """Every answered image is taken over, and the journal goes when its part is written."""
    assert resumed(call, server) == 24
    assert not interrupted.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],  # torn by a power cut
        lambda data: data[:-20] + b"\0" * 20,  # blocks that never reached the disk
        lambda data: data.replace(b"0.", b"9.", 1),  # a bit that flipped
    ],
)
def test_a_damaged_line_is_asked_again(
    call: Call, interrupted: Path, server: ModelServer, damage: Callable[[bytes], bytes]
) -> None:
    """One line is lost, the other two are used."""
    interrupted.write_bytes(damage(interrupted.read_bytes()))
    assert resumed(call, server) == 16


@pytest.mark.parametrize(
    ("column", "value"), [("sha256", "0" * 64), ("model_digest", "x"), ("image_id", "y")]
)
def test_a_line_about_something_else_is_asked_again(
    call: Call, interrupted: Path, server: ModelServer, column: str, value: str
) -> None:
    """Rows of another file, another model or another image do not count, however whole they are."""
    lines = interrupted.read_bytes().splitlines()
    rows: list[Row] = json.loads(lines[0].partition(b" ")[2])
    text = json.dumps([row | {column: value} for row in rows]).encode()
    lines[0] = b"%08x %s" % (zlib.crc32(text), text)
    interrupted.write_bytes(b"\n".join(lines) + b"\n")
    assert resumed(call, server) == 16


def test_failures_that_stopped_a_run_are_asked_again(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """Answered failures are taken over while they are few enough, and asked again once they ended a run."""
    (images / "001.jpg").write_bytes((images / "001.jpg").read_bytes() + b"BROKEN")
    assert call("preprocess", "--run-id", "r", "--input", images, "--max-failures", 0).code == 0
    answered: list[bytes] = []

    def refuse_after_the_second(number: int, pack: Images) -> None:
        answered.extend(data for _, data in pack)
        if number >= 2 and any(b"BROKEN" in data for data in answered):
            server.key = "secret"

    server.faults = refuse_after_the_second
    assert call("score", "--run-id", "r", "--pack-size", 8, "--in-flight", 1).code == 78
    server.key = ""
    kept = [row for _, row in Journal(open_run(str(runs), "r"), 0, 2).earlier()]
    failed = [row["image_id"] for row in kept if row["reason"]]
    assert (len(kept), failed) == (len(answered), ["001.jpg"])
    server.faults = lambda _number, _images: None
    server.images.clear()
    assert call("score", "--run-id", "r").code == 65
    assert len(server.images) == 40 - len(kept) + len(failed)


def test_an_object_store_keeps_none(tmp_path: Path) -> None:
    """Where nothing can be appended, nothing is pretended: a next attempt finds nothing and asks again."""
    run = open_run(f"memory://{tmp_path.name}", "r")
    Journal(run, 0, 1).keep(0, [{"image_id": "a"}])
    assert run.list("") == []
    assert list(Journal(run, 0, 2).earlier()) == []
