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


def workers(stack: Stack) -> list[str]:
    """List the states of the model's workers."""
    described = models(stack, "describe", f"--model={ARCHIVE}")
    return [each["status"] for each in described["workers"]]


def test_a_model_gets_another_number_of_workers_while_it_serves(stack: Stack) -> None:
    """One worker more, all of them ready, and back."""
    assert names(stack) == [ARCHIVE]
    before = len(workers(stack))
    models(stack, "scale", f"--model={ARCHIVE}", f"--workers={before + 1}")
    more = workers(stack)
    models(stack, "scale", f"--model={ARCHIVE}", f"--workers={before}")
    assert more == ["READY"] * (before + 1)
    assert workers(stack)[:before] == ["READY"] * before


@pytest.mark.parametrize("archive", ["http://127.0.0.1/evil.mar", "../keys/key_file.json", "/etc/passwd"])
def test_no_archive_from_outside_the_model_store_is_registered(stack: Stack, archive: str) -> None:
    """Even with the management key, code comes from the model store alone."""
    command = ["docker", "compose", "-p", stack.project, "--env-file", str(stack.file), "run", "--rm"]
    command += ["--no-deps", "-T", "models", "imagebatch", "models", "register", f"--archive={archive}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == REFUSED, done.stderr
    assert names(stack) == [ARCHIVE]
