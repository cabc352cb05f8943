"""What a scenario's verdict rests on: exit codes, ids and bytes; each way of losing an image is noticed."""

import os
import time
from pathlib import Path

import pytest

from tests.support.children import Child, end_all
from tests.system.chaos.runs import Folder, Run, as_model, ids_of, only
from tests.system.kit.verdict import RefutedError

CSV = b"image_id,sha256,model,model_version,model_digest\r\n" + b"".join(
    f"{name},{name},m,1.0,sha256:{'ab' * 32}\r\n".encode() for name in ("a.png", "b.png", "c.png")
)
FAILURES = b"image_id,uri,stage,reason,detail\r\n"


def run_with(tmp_path: Path, predictions: bytes, failures: bytes = FAILURES) -> Run:
    """A run whose commands all succeed, with these outputs."""
    output = tmp_path / "r/output"
    output.mkdir(parents=True)
    (output / "predictions.csv").write_bytes(predictions)
    (output / "failures.csv").write_bytes(failures)
    run = Run("r", {}, tmp_path / "logs", Folder(tmp_path / "r"), ["a.png", "b.png", "c.png"], CSV, 1.0)
    run.program = "/bin/true"
    return run


def test_a_good_run_passes(tmp_path: Path) -> None:
    """Nothing lost, nothing doubled, the expected bytes."""
    result = run_with(tmp_path, CSV).settle("seen")
    assert (result.images, result.lost, result.doubled, result.seen) == (3, 0, 0, "seen")


@pytest.mark.parametrize(
    ("predictions", "failures", "complaint"),
    [
        (only(CSV, ["a.png", "c.png"]), FAILURES, "1 images lost, 0 doubled"),
        (CSV + CSV.splitlines(keepends=True)[1], FAILURES, "0 images lost, 1 doubled"),
        (CSV, FAILURES + b"a.png,u,score,r,d\r\n", "0 images lost, 1 doubled"),
        (only(CSV, ["a.png", "b.png"]), FAILURES + b"c.png,u,score,r,d\r\n", "failed: .*c.png"),
        (CSV.replace(b"1.0", b"1.1"), FAILURES, "byte for byte"),
    ],
)
def test_a_bad_run_is_refuted(tmp_path: Path, predictions: bytes, failures: bytes, complaint: str) -> None:
    """A lost image, a doubled one, an unexpected failure and a changed byte each fail the scenario."""
    with pytest.raises(RefutedError, match=complaint):
        run_with(tmp_path, predictions, failures).settle("")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("exit 3", r"exit code 3 and not \(0, 74\)"),
        ("echo Traceback >&2; echo imagebatch: full >&2; exit 74", "without its one line"),
        ("echo full >&2; exit 74", "without its one line"),
    ],
)
def test_exit_codes_are_checked(tmp_path: Path, script: str, complaint: str) -> None:
    """Another exit code than the promised one, or an error without its one clear line, fails the scenario."""
    run = run_with(tmp_path, CSV)
    child = Child(["/bin/sh", "-c", script], environment=os.environ, log=tmp_path / "x.log")
    with pytest.raises(RefutedError, match=complaint):
        run.end(child, codes=(0, 74))


def test_ending_all_leaves_no_orphan(tmp_path: Path) -> None:
    """What a child has started ends with it, also when the child itself ended before."""
    pid = tmp_path / "pid"
    child = Child(
        ["/bin/sh", "-c", f"sleep 60 & echo $! >{pid}"], environment=os.environ, log=tmp_path / "x.log"
    )
    assert child.wait(10) == 0
    orphan = int(pid.read_text())
    assert alive(orphan)
    end_all()
    deadline = time.monotonic() + 10
    while alive(orphan):
        assert time.monotonic() < deadline, "it outlived its group"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_another_version_signs_the_same_predictions() -> None:
    """Only version and digest differ."""
    signed = as_model(CSV, "2.0", "sha256:" + "cd" * 32)
    assert signed.replace(b"cd", b"ab").replace(b"2.0", b"1.0") == CSV
    assert ids_of(signed) == ["a.png", "b.png", "c.png"]
