"""The service `models`: the management API, by the commands of docs/how-to/containers.md."""

import json
import subprocess
from typing import Any

import pytest
from compose_stack import ROOT, Stack

ARCHIVE = "solar-cells"
REFUSED = 78


def models(stack: Stack, *arguments: str) -> Any:
    """Run `imagebatch models` where the management API is reached, and read the server's answer."""
    said = stack.compose("run", "--rm", "--no-deps", "-T", "models", "imagebatch", "models", *arguments)
    return json.loads(said.strip().splitlines()[-1])["answer"]


def names(stack: Stack) -> list[str]:
    """List the names of the models that are served."""
    return [each["modelName"] for each in models(stack, "list")]


def test_a_model_is_taken_away_and_registered_while_the_server_runs(stack: Stack) -> None:
    """Listed, with workers; gone; registered again from its archive, with workers, as before."""
    before = names(stack)
    workers = len(models(stack, "describe", f"--model={ARCHIVE}")["workers"])
    models(stack, "unregister", f"--model={ARCHIVE}")
    gone = names(stack)
    models(stack, "register", f"--archive={ARCHIVE}.mar", f"--workers={workers}")
    assert (before, gone, names(stack)) == ([ARCHIVE], [], [ARCHIVE])
    described = models(stack, "describe", f"--model={ARCHIVE}")
    assert [worker["status"] for worker in described["workers"]] == ["READY"] * workers


@pytest.mark.parametrize("archive", ["http://127.0.0.1/evil.mar", "../keys/key_file.json", "/etc/passwd"])
def test_no_archive_from_outside_the_model_store_is_registered(stack: Stack, archive: str) -> None:
    """Even with the management key, code comes from the model store alone."""
    command = ["docker", "compose", "-p", stack.project, "--env-file", str(stack.file), "run", "--rm"]
    command += ["--no-deps", "-T", "models", "imagebatch", "models", "register", f"--archive={archive}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == REFUSED, done.stderr
    assert names(stack) == [ARCHIVE]
