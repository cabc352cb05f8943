"""Where figures are kept: a JSON file per benchmark, and a table in docs/explanation/performance.md."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from tools.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "explanation" / "performance.md"


def keep(name: str, result: dict[str, Any]) -> None:
    """Write a benchmark's result, with the machine that it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": machine(), **result}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def show(name: str, table: str, page: Path = PAGE) -> None:
    """Replace the table between this benchmark's two marks on the page."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = page.read_text("utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} lacks the marks {begin} and {end}")
    said = f"{table}\n\nMeasured on: {machine()}."
    page.write_text(f"{before}{begin}\n{said}\n{end}{after}", encoding="utf-8")


def machine() -> str:
    """Processor, cores and Python, in one line."""
    models = (
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    )
    return f"{next(models, platform.machine())}, {os.cpu_count()} cores, Python {platform.python_version()}"
