"""`make test`, `make e2e`: pytest for each part in its own environment, and one summary of all.

Unit tests run in as many lanes as there are cores, at most two: what is printed of each comes in one piece.
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.paths import ROOT, UV, Argv, say

# Part whose environment runs it, and the folder below tests/.
UNIT = (
    ("pipeline_image", "imagebatch"),
    ("pipeline_image", "system/chaos"),
    ("pipeline_image", "benchmarks"),
    ("handlers", "handlers"),
    ("training", "training"),
    ("airflow", "dags"),
    ("airflow", "tools"),
    ("monitoring", "monitoring"),
)
E2E = (("pipeline_image", "system/endurance"), ("airflow", "system/demo"))
LANES = 2
LARGE = 20  # files of tests in a folder beyond which it is shared out between the lanes


def main(argv: list[str]) -> int:
    """Run one suite.

    Args:
        argv: `unit` or `e2e`.

    Returns:
        0 if everything passed; 1 if not, or if no test ran; 2 for another suite.
    """
    suites = {"unit": UNIT, "e2e": E2E}
    if len(argv) != 1 or argv[0] not in suites:
        say(f"usage: python3.11 -m tools.dev.tests {'|'.join(suites)}")
        return 2
    begun = time.monotonic()
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failed: list[str] = []
    lanes = min(LANES, len(os.sched_getaffinity(0))) if argv[0] == "unit" else 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(lanes) as executor:
        started = [
            (report := Path(folder, f"{number}.xml"), executor.submit(_run, part, paths, report, lanes > 1))
            for number, (part, paths) in enumerate(pieces(suites[argv[0]], lanes))
        ]
        for report, ended in started:
            failed += add(totals, report, ended.result())
    seconds = time.monotonic() - begun
    say("")
    for name in failed:
        say(f"failed: {name}")
    skipped = f", {totals['skipped']} skipped" if totals["skipped"] else ""
    say(f"{totals['passed']} passed, {totals['failed']} failed{skipped} in {seconds:.0f} s")
    return 0 if totals["passed"] and not totals["failed"] else 1


def pieces(suite: tuple[tuple[str, str], ...], lanes: int) -> list[tuple[str, list[str]]]:
    """Share the tests out: one pytest per folder, of a large one as many as there are lanes.

    Args:
        suite: part and folder below tests/ of each.
        lanes: how many run at once.

    Returns:
        Part and paths of each pytest.
    """
    pieces = []
    for part, folder in suite:
        files = sorted(
            path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"tests/{folder}/**/test_*.py")
        )
        if len(files) > LARGE and lanes > 1:
            pieces += [(part, files[lane::lanes]) for lane in range(lanes)]
        else:
            pieces.append((part, [f"tests/{folder}"]))
    return pieces


def _run(part: str, paths: list[str], report: Path, kept: bool) -> int:  # noqa: FBT001 - private
    """Run one pytest; what it prints is `kept` until its end, so that two do not mix. Gives its exit code."""
    what = paths[0] if len(paths) == 1 else f"{len(paths)} files from {paths[0]} on"
    say(f"== {what} in the environment of {part}/")
    python: Argv = [UV, "run", "--project", part, "--frozen", "--quiet", "python", "-Im", "pytest"]
    argv = [*python, "-c", f"{part}/pyproject.toml", "--rootdir", ".", f"--junitxml={report}", *paths]
    if not kept:
        return subprocess.run(argv, cwd=ROOT, check=False).returncode
    begun = time.monotonic()
    done = subprocess.run(
        argv,
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    say(f"== {what}: {time.monotonic() - begun:.0f} s\n{done.stdout}")
    return done.returncode


def add(totals: dict[str, int], report: Path, code: int) -> list[str]:
    """Add one pytest's counts to the totals.

    Args:
        totals: `passed`, `failed`, `skipped`; changed in place.
        report: pytest's JUnit file; missing if pytest did not start, which counts as a failure.
        code: pytest's exit code.

    Returns:
        Names of the tests that failed.
    """
    if not report.exists():
        totals["failed"] += 1
        return ["pytest itself did not start"]
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - our own pytest wrote it
    counted = (
        {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
        if suite is not None
        else {}
    )
    failed = counted.get("failures", 0) + counted.get("errors", 0)
    skipped = counted.get("skipped", 0)
    totals["passed"] += counted.get("tests", 0) - failed - skipped
    totals["skipped"] += skipped
    totals["failed"] += failed or int(code != 0)
    cases = suite.iter("testcase") if suite is not None else ()
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
