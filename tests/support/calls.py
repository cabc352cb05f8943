"""The command line, called in the test's own process: what a call is, and what it leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Outcome:
    """What a command left: exit code, the JSON of its last line, its standard error and output."""

    code: int
    last: dict[str, Any]
    err: str
    out: str = ""


Call = Callable[..., Outcome]


def scored(
    call: Call, run_id: str, folder: Path, *options: object, asked: tuple[object, ...] = ()
) -> Outcome:
    """The stages without their quality gates, which take seconds to load; `asked`: options of scoring."""
    for stage in (("preprocess", "--input", folder, *options), ("score", *asked)):
        assert call(*stage, "--run-id", run_id).code == 0
    return call("postprocess", "--run-id", run_id)
