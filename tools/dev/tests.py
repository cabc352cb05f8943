"""`make test`, `fuzz`, `e2e`, `release-test`: pytest for each part in its own environment, and one summary.

They run in as many lanes as there are cores, at most two, but for `release-test`: what is printed of each
comes in one piece.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.paths import ROOT, UV, Argv, fail, say

# Folder or file below tests/, and the part whose environment runs it.
SUITES = {
    "unit": {
        # The longest first: both lanes shall end together.
        "imagebatch": "pipeline_image",
        "training": "training",
        "dags": "airflow",
        "handlers": "handlers",
        "tools": "airflow",
        "monitoring": "monitoring",
        "deploy/kserve/predictor": "deploy/kserve/predictor",
        "deploy/kserve/manifests": "deploy/kserve",
        "deploy/kubernetes": "deploy/kserve",
        "system/chaos": "pipeline_image",
        "system/kit": "pipeline_image",
        "support": "pipeline_image",
        "benchmarks": "pipeline_image",
    },
    "fuzz": {
        "imagebatch/inputs/test_left_out.py": "pipeline_image",
        "imagebatch/picture/test_fuzz.py": "pipeline_image",
        "imagebatch/model_apis/test_served.py": "pipeline_image",
        "imagebatch/stages/score/test_storms.py": "pipeline_image",
        "imagebatch/stages/preprocess/test_lists_fuzz.py": "pipeline_image",
        "dags/test_asked.py": "airflow",
        "dags/test_pipeline_files.py": "airflow",
        "dags/test_run_name.py": "airflow",
    },
    "e2e": {
        # Longer than all others together, and last in it the benchmark, which then has the machine to itself.
        "system/demo": "airflow",
        "system/endurance": "pipeline_image",
        "system/stores": "pipeline_image",
        "system/kserve": "pipeline_image",
    },
    # Real trainings, and real servers that change their model under a batch: half an hour.
    "releases": {"system/release": "training", "system/review": "pipeline_image"},
    # Their environment is made only for `make orchestrators`, whose ways begin with them.
    "orchestrators": {"deploy/pipelines": "deploy/pipelines"},
}
# How many random examples hypothesis tries (tests/support/examples.py); EXAMPLES says another number.
PROFILES = {
    "unit": "steady",
    "fuzz": "thorough",
    "e2e": "steady",
    "releases": "steady",
    "orchestrators": "steady",
}
LANES = 2
PARALLEL = ("unit", "fuzz", "e2e")  # suites that share the cores out
LARGE = 30  # files of tests in a folder beyond which both lanes share it; its session fixtures are made twice
USAGE = 2  # exit code of a command that was not understood
NOTHING_COLLECTED = 5  # exit code of pytest


def main(argv: list[str]) -> int:
    """Run one suite, or what is chosen of it.

    Args:
        argv: `unit`, `fuzz`, `e2e`, `releases` or `orchestrators`, and the choice; see `--help`.

    Returns:
        0 if everything passed; 1 if not, or if no test ran.

    Raises:
        SystemExit: with 2, there is no such suite or part.
    """
    parser = argparse.ArgumentParser(prog="python3.11 -m tools.dev.tests", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--part", default="", help="these tests only: a folder or file below tests/")
    parser.add_argument("-k", default="", metavar="NAMES", help="these tests only: as pytest's -k")
    asked = parser.parse_args(argv)
    begun = time.monotonic()
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failed: list[str] = []
    lanes = min(LANES, len(os.sched_getaffinity(0))) if asked.suite in PARALLEL else 1
    wanted = pieces(chosen(SUITES[asked.suite], asked.part), lanes)
    several = lanes > 1 and len(wanted) > 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(lanes) as executor:
        started = [
            (
                report := Path(folder, f"{number}.xml"),
                executor.submit(_run, part, paths, report, asked, kept=several),
            )
            for number, (part, paths) in enumerate(wanted)
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


def chosen(suite: dict[str, str], part: str) -> dict[str, str]:
    """Choose from a suite.

    Args:
        suite: environment of each folder below tests/.
        part: one of its folders, or what lies in one; several where they share a folder; empty = all.

    Returns:
        Environment of each folder or file to run.

    Raises:
        SystemExit: with 2, there is no such part.
    """
    part = part.strip("/")
    if not part:
        return suite
    inside = {name: suite[name] for name in suite if f"{name}/".startswith(f"{part}/")}
    around = next((name for name in suite if part.startswith(f"{name}/")), None)
    if inside:
        return inside
    if around is None or not (ROOT / "tests" / part).exists():
        fail(f"there is no part {part}; the parts are {', '.join(suite)}, and what lies in them", USAGE)
    return {part: suite[around]}


def pieces(suite: dict[str, str], lanes: int) -> list[tuple[str, list[str]]]:
    """Share the tests out: one pytest per folder, of a large one as many as there are lanes.

    Args:
        suite: environment of each folder or file below tests/.
        lanes: how many run at once.

    Returns:
        Environment and paths of each pytest.
    """
    pieces = []
    for folder, part in suite.items():
        files = sorted(
            path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"tests/{folder}/**/test_*.py")
        )
        if len(files) > LARGE and lanes > 1:
            pieces += [(part, files[lane::lanes]) for lane in range(lanes)]
        else:
            pieces.append((part, [f"tests/{folder}"]))
    return pieces


def _run(part: str, paths: list[str], report: Path, asked: argparse.Namespace, *, kept: bool) -> int:
    """Run one pytest; what it prints is `kept` until its end, where another runs at the same time.

    Returns:
        Its exit code; 0 where none of its tests has such a name.
    """
    what = paths[0] if len(paths) == 1 else f"{len(paths)} files from {paths[0]} on"
    say(f"== {what} in the environment of {part}/")
    python: Argv = [UV, "run", "--project", part, "--frozen", "--quiet", "python", "-Im", "pytest"]
    argv = [*python, "-c", f"{part}/pyproject.toml", "--rootdir", ".", f"--junitxml={report}", *paths]
    argv += ["-k", asked.k] if asked.k else []
    begun = time.monotonic()
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "HYPOTHESIS_PROFILE": PROFILES[asked.suite]},
        check=False,
        stdout=subprocess.PIPE if kept else None,
        stderr=subprocess.STDOUT if kept else None,
        text=True,
        errors="replace",
    )
    if kept:
        say(f"== {what}: {time.monotonic() - begun:.0f} s\n{done.stdout}")
    return 0 if asked.k and done.returncode == NOTHING_COLLECTED else done.returncode


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
