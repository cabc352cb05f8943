"""`make lint`: ruff, mypy, import-linter and deptry, each with the environment that it needs."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.paths import ROOT, UV, Argv, program, say

# A part whose environment has the libraries, a folder to check, and where its own modules are imported from.
TYPED = (
    ("pipeline_image", "pipeline_image/src", "pipeline_image/src:pipeline_image/picture"),
    ("pipeline_image", "pipeline_image/picture", "pipeline_image/picture"),
    ("handlers", "handlers", "handlers:pipeline_image/picture"),
    ("training", "training/src", "training/src"),
    ("airflow", "dags", "dags"),
    # tools/local/notice.py tells by the receivers of missed deadlines; tools/torchserve.py reads handlers/.
    ("airflow", "tools", ".:dags:handlers"),
    ("monitoring", "monitoring", "monitoring"),
    (
        "deploy/kserve/predictor",
        "deploy/kserve/predictor",
        "deploy/kserve/predictor:handlers:pipeline_image/picture",
    ),
    ("airflow", "containers", "containers"),
    ("airflow", "deploy/pipelines/imagebatch_pipelines", "deploy/pipelines"),
)
LANES = 2
DOCKERFILES = sorted(
    path
    for part in ("*", "deploy/*/*", "tests/system/compose/standins/*")
    for path in ROOT.glob(f"{part}/Dockerfile")
)
PARTS = {
    "pipeline_image": ".",
    "handlers": ".",
    "training": ".",
    "airflow": "../dags",
    "monitoring": ".",
    "deploy/kserve/predictor": ".",
}


def main() -> int:
    """Run every linter, also after one has complained.

    Returns:
        0 if all are content, else 1.
    """
    checks = _checks()
    with ThreadPoolExecutor(min(LANES, len(os.sched_getaffinity(0)))) as lanes:
        content = [*lanes.map(lambda check: _passes(*check), checks)]
    unhappy = [check[0] for check, passed in zip(checks, content, strict=True) if not passed]
    say(f"lint: {'failed: ' + ', '.join(unhappy) if unhappy else 'all passed'}")
    return 1 if unhappy else 0


def _checks() -> list[tuple[str, Argv, Path]]:
    tools: Argv = [UV, "run", "--quiet", "--frozen", "--project", "."]
    checks: list[tuple[str, Argv, Path]] = [
        ("ruff check", [*tools, "ruff", "check", "."], ROOT),
        ("ruff format", [*tools, "ruff", "format", "--check", "."], ROOT),
        ("hadolint", [*tools, "hadolint", *DOCKERFILES], ROOT),
    ]
    for part, folder, base in TYPED:
        python = f"--python-executable={program(part, 'python')}"
        # A cache each: two that run at the same time must not write to the same one.
        mypy: Argv = [*tools, "mypy", python, f"--cache-dir=.mypy_cache/{folder}"]
        checks.append((f"mypy {folder}", ["env", f"MYPYPATH={base}", *mypy, folder], ROOT))
    linter = program("pipeline_image", "lint-imports")
    checks.append(("import-linter pipeline_image", [linter], ROOT / "pipeline_image"))
    contract: Argv = ["lint-imports", "--config", "training/pyproject.toml"]
    checks.append(("import-linter training", ["env", "PYTHONPATH=training/src", *tools, *contract], ROOT))
    for part, folder in PARTS.items():
        checks.append((f"deptry {part}", [program(part, "deptry"), folder], ROOT / part))
    picture = ROOT / "pipeline_image" / "picture"
    checks.append(("deptry picture", [program("pipeline_image", "deptry"), "."], picture))
    return checks


def _passes(name: str, argv: Argv, folder: Path) -> bool:
    begun = time.monotonic()
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    head = f"{name:<34}{time.monotonic() - begun:7.1f} s  {'ok' if done.returncode == 0 else 'failed'}"
    # In one piece: another check may print at the same time.
    say("\n".join([head, *([(done.stdout + done.stderr).rstrip()] if done.returncode else [])]))
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
