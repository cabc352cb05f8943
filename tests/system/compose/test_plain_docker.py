"""The script of docs/how-to/other-orchestrators.md, run against the stack's model server."""

import json
from pathlib import Path
from typing import Any

from tests.support.nightly import Nightly
from tools.compose.stack import Stack

RUN = "nightly-test"


def test_a_night_without_airflow(tmp_path: Path, stack: Stack, run_folder: str) -> None:
    """One container makes the rows that Airflow's containers made; the same night again scores nothing; the
    same night with other images is refused with the code that says so.
    """
    nightly = Nightly(tmp_path, stack, RUN)
    first = nightly("--limit=100")
    assert first.returncode == 0, first.stderr
    result: dict[str, Any] = json.loads(first.stdout.strip().splitlines()[-1])
    assert (result["listed"], result["predicted"]) == (100, 100)
    rows = stack.read(f"/data/runs/{RUN}/output/predictions.csv").splitlines()
    assert rows == stack.read(f"/data/runs/{run_folder}/output/predictions.csv").splitlines()[:101]
    again = nightly("--limit=100")
    assert again.returncode == 0, again.stderr
    assert stack.read(f"/data/runs/{RUN}/output/predictions.csv").splitlines() == rows
    assert nightly("--limit=99").returncode == 78
