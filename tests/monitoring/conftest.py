"""The monitoring's own programs: what needs them is skipped where they are not installed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"


def rules(name: str) -> list[dict[str, Any]]:
    """Read the rules of a file, in order."""
    content = yaml.safe_load((MONITORING / "rules" / name).read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def program(name: str) -> str:
    """Find a program, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(
            f"{name} is not installed (Debian: prometheus, prometheus-alertmanager, prometheus-pushgateway)"
        )
    return found
