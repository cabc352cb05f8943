import subprocess
import sys
from pathlib import Path

import pytest

from tools.dev import tests as runner


@pytest.mark.parametrize(
    ("body", "totals"),
    [
        ("def test_a(): pass\ndef test_b(): pass", {"passed": 2, "failed": 0, "skipped": 0}),
        ("def test_a(): assert 0\ndef test_b(): pass", {"passed": 1, "failed": 1, "skipped": 0}),
        ("import nothing_of_that_name", {"passed": 0, "failed": 1, "skipped": 0}),
        ("import pytest\n@pytest.mark.skip\ndef test_a(): pass", {"passed": 0, "failed": 0, "skipped": 1}),
    ],
)
def test_the_summary_counts_what_pytest_reported(tmp_path: Path, body: str, totals: dict[str, int]) -> None:
    """Passed, failed, broken and skipped tests of a real pytest run are added up rightly."""
    (tmp_path / "test_it.py").write_text(body)
    report = tmp_path / "report.xml"
    argv = [sys.executable, "-Im", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", str(tmp_path)]
    code = subprocess.run(argv, capture_output=True, check=False, cwd=tmp_path).returncode
    seen = {"passed": 0, "failed": 0, "skipped": 0}
    runner.add(seen, report, code)
    assert seen == totals


def test_a_pytest_that_does_not_start_is_a_failure(tmp_path: Path) -> None:
    """No report at all never counts as success."""
    seen = {"passed": 0, "failed": 0, "skipped": 0}
    runner.add(seen, tmp_path / "none.xml", 4)
    assert seen["failed"] == 1


def test_every_file_is_run_once_whatever_the_lanes() -> None:
    """A large folder is shared out; nothing of it is lost or run twice."""
    (whole,), shared = (runner.pieces((("pipeline_image", "imagebatch"),), lanes) for lanes in (1, 2))
    assert whole == ("pipeline_image", ["tests/imagebatch"])
    files = [file for _, paths in shared for file in paths]
    there = (runner.ROOT / "tests" / "imagebatch").rglob("test_*.py")
    assert sorted(files) == sorted(path.relative_to(runner.ROOT).as_posix() for path in there)
    assert len(shared) == 2
