"""The environment of deploy/pipelines, which these ways alone need: made when the first asks for it."""

import functools
import shutil
import subprocess
from pathlib import Path

from tests.support.children import Child
from tests.system.kit.verdict import RefutedError, require
from tests.system.orchestrators.ground import Ground
from tools.local.services import base_environment
from tools.paths import ROOT, UV, program, say

PART = "deploy/pipelines"
TESTS = ROOT / "tests" / "deploy" / "pipelines"


@functools.cache
def python() -> Path:
    """Bring the environment to the state of its lock; return its Python."""
    say(f"the environment of {PART}: made, unless it is there")
    sync = [UV, "sync", "--frozen", "--quiet", "--project", PART]
    done = subprocess.run(sync, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefutedError(f"{PART} cannot be set up: {done.stderr.strip()[-300:]}")
    return program(PART, "python")


def started(ground: Ground, log: str, *argv: str | Path, **environment: str) -> Child:
    """Start a program of the environment: `-m imagebatch_pipelines.…` and its arguments."""
    return Child(
        [str(python()), *map(str, argv)],
        environment=base_environment() | environment,
        log=ground.logs / f"{log}.log",
        folder=ROOT,
    )


def done(ground: Ground, log: str, *argv: str | Path, seconds: float = 600, **environment: str) -> str:
    """Run such a program to its end; return its standard output.

    Raises:
        RefutedError: It failed.
    """
    child = started(ground, log, *argv, **environment)
    code = child.wait(seconds)
    out = child.log.with_suffix(".out").read_text(errors="replace")
    require(code == 0, f"{log} ended with {code}: {child.err.strip()[-400:] or out.strip()[-400:]}")
    return out


def checked(ground: Ground, name: str) -> str:
    """Run the tests of one renderer: what can be told without its service.

    Returns:
        How many have passed, in words.
    """
    test = TESTS / f"test_{name}.py"
    settings = ["-c", f"{PART}/pyproject.toml", "--rootdir", ".", "-q"]
    out = done(ground, f"{name}-tests", "-Im", "pytest", *settings, test)
    return f"{out.strip().splitlines()[-1].split(' in ')[0]} of its static checks"


def copied(ground: Ground, folder: Path) -> Path:
    """Copy the photographs below a folder."""
    return Path(shutil.copytree(ground.photographs, folder / "images"))
