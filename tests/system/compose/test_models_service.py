"""The service `models`: the management API, by the commands of docs/how-to/containers.md."""

import json
import subprocess
from typing import Any

import pytest

from tools.compose.stack import ROOT, Stack

ARCHIVE = "solar-cells"
REFUSED = 78


def models(stack: Stack, *arguments: str) -> Any:
    """Run `imagebatch models` where the management API is reached, and read the server's answer."""
    said = stack.compose("run", "--rm", "--no-deps", "-T", "models", "imagebatch", "models", *arguments)
    return json.loads(said.strip().splitlines()[-1])["answer"]


def names(stack: Stack) -> list[str]:
    """List the names of the models that are served."""
    return [each["modelName"] for each in models(stack, "list")]


def test_the_management_api_is_reached_where_models_are_deployed(stack: Stack) -> None:
    """The model is listed, all its workers are ready and it comes from the store's archive."""
    assert names(stack) == [ARCHIVE]
    described = models(stack, "describe", f"--model={ARCHIVE}")
    assert {each["status"] for each in described["workers"]} == {"READY"}
    assert described["modelUrl"] == f"{ARCHIVE}.mar"


@pytest.mark.parametrize("archive", ["http://127.0.0.1/evil.mar", "../keys/key_file.json", "/etc/passwd"])
def test_no_archive_from_outside_the_model_store_is_registered(stack: Stack, archive: str) -> None:
    """Even with the management key, code comes from the model store alone."""
    command = stack.argv("run", "--rm")
    command += ["--no-deps", "-T", "models", "imagebatch", "models", "register", f"--archive={archive}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == REFUSED, done.stderr
    assert names(stack) == [ARCHIVE]
