import subprocess
import sys
from pathlib import Path

import pytest

from tools.dev import tests as runner
from tools.paths import ROOT


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
    (whole,), shared = (runner.pieces({"imagebatch": "pipeline_image"}, lanes) for lanes in (1, 2))
    assert whole == ("pipeline_image", ["tests/imagebatch"])
    files = [file for _, paths in shared for file in paths]
    there = (ROOT / "tests" / "imagebatch").rglob("test_*.py")
    assert sorted(files) == sorted(path.relative_to(ROOT).as_posix() for path in there)
    assert len(shared) == 2


def test_every_test_belongs_to_a_suite() -> None:
    """No file of tests is forgotten: each is run by `make test`, `make e2e` or `make compose-test`."""
    folders = [ROOT / "tests" / name for suite in runner.SUITES.values() for name in suite]
    folders.append(ROOT / "tests" / "system" / "compose")
    files = list((ROOT / "tests").rglob("test_*.py"))
    assert files
    assert [file for file in files if not any(file.is_relative_to(folder) for folder in folders)] == []


@pytest.mark.parametrize(
    ("part", "chosen"),
    [
        ("", ["imagebatch", "handlers", "system/chaos"]),
        ("handlers", ["handlers"]),
        ("imagebatch/scorer/", ["imagebatch/scorer"]),
        ("imagebatch/test_errors.py", ["imagebatch/test_errors.py"]),
        ("system", ["system/chaos"]),
    ],
)
def test_a_part_is_a_folder_or_what_lies_in_it(part: str, chosen: list[str]) -> None:
    """PART= names a folder below tests/, and its tests run in the environment of its part."""
    suite = {"imagebatch": "pipeline_image", "handlers": "handlers", "system/chaos": "pipeline_image"}
    found = runner.chosen(suite, part)
    assert list(found) == chosen
    assert set(found.values()) <= set(suite.values())


@pytest.mark.parametrize("part", ["nope", "imagebatch/nope", "../tests", "image"])
def test_an_unknown_part_is_refused(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line names the parts that there are, and the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        runner.main(["unit", "--part", part])
    assert ended.value.code == 2
    assert f"no part {part}; the parts are imagebatch, " in capsys.readouterr().err


def test_names_choose_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """K= runs the tests of that name alone; where there is none, that is no success."""
    here = ["unit", "--part", "tools/dev/test_tests.py", "-k"]
    assert runner.main([*here, "does_not_start"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 passed, 0 failed in ")
    assert runner.main([*here, "no_such_test"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 passed, 0 failed in ")
