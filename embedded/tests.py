"""`make test`, `make e2e`: pytest for each part in its own environment, and one summary of all."""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from environment import ROOT, UV, Argv, say

# Part whose environment runs it, and the folder below tests/.
UNIT = (
    ("pipeline_image", "pipeline_image"),
    ("pipeline_image", "chaos"),
    ("pipeline_image", "benchmarks"),
    ("handlers", "handlers"),
    ("training", "training"),
    ("airflow", "dags"),
    ("airflow", "embedded"),
    ("airflow", "containers"),
    ("monitoring", "monitoring"),
)
E2E = (("pipeline_image", "endurance"), ("airflow", "e2e"))


def main(argv: list[str]) -> int:
    """Run one suite.

    Args:
        argv: `unit` or `e2e`.

    Returns:
        0 if everything passed; 1 if not, or if no test ran; 2 for another suite.
    """
    suites = {"unit": UNIT, "e2e": E2E}
    if len(argv) != 1 or argv[0] not in suites:
        say(f"usage: tests.py {'|'.join(suites)}")
        return 2
    begun = time.monotonic()
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failed: list[str] = []
    for part, folder in suites[argv[0]]:
        say(f"== tests/{folder} in the environment of {part}/")
        with tempfile.TemporaryDirectory() as temporary:
            report = Path(temporary, "report.xml")
            code = subprocess.run(_pytest(part, folder, report), cwd=ROOT, check=False).returncode
            failed += add(totals, report, code)
    seconds = time.monotonic() - begun
    say("")
    for name in failed:
        say(f"failed: {name}")
    skipped = f", {totals['skipped']} skipped" if totals["skipped"] else ""
    say(f"{totals['passed']} passed, {totals['failed']} failed{skipped} in {seconds:.0f} s")
    return 0 if totals["passed"] and not totals["failed"] else 1


def _pytest(part: str, folder: str, report: Path) -> Argv:
    python: Argv = [UV, "run", "--project", part, "--frozen", "--quiet", "python", "-Im", "pytest"]
    return [
        *python,
        "-c",
        f"{part}/pyproject.toml",
        "--rootdir",
        ".",
        f"--junitxml={report}",
        f"tests/{folder}",
    ]


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
