"""The script of docs/how-to/other-orchestrators.md, run against the stack's model server."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.compose.stack import Stack
from tools.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "other-orchestrators.md"
RUN = "nightly-test"


@pytest.fixture
def nightly(tmp_path: Path, stack: Stack) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Save the page's script and run it as cron would: few variables, no terminal."""
    found = re.search(
        r"<!-- script: run by make compose-test -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert found
    script = tmp_path / "imagebatch-nightly"
    script.write_text(found[1])
    script.chmod(0o755)
    settings = {"PROJECT": stack.project, "RUN": RUN, "PATH": os.environ["PATH"]}
    settings["INPUTS"] = stack.settings["IMAGEBATCH_DOCKER_INPUTS"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script, *arguments], env=settings, cwd="/", capture_output=True, text=True, check=False
        )

    return run


def test_a_night_without_airflow(
    nightly: Callable[..., subprocess.CompletedProcess[str]], stack: Stack, run_folder: str
) -> None:
    """One container makes the rows that Airflow's containers made; the same night again scores nothing; the
    same night with other images is refused with the code that says so.
    """
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
