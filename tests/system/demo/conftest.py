"""One demo on real services, beside whatever else runs on this machine: own folder, own ports."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tools.paths import PORTS, ROOT

CLI = ROOT / "pipeline_image" / ".venv" / "bin" / "imagebatch"
DEMO_SECONDS = 3600  # against a hang: no test may fail because the machine is busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the time that a training takes: the first one pays for the fixture."""
    for item in items:
        item.add_marker(pytest.mark.timeout(DEMO_SECONDS))


@dataclass(frozen=True)
class Demo:
    """A finished `make demo`."""

    output: str
    seconds: float

    @property
    def run(self) -> Path:
        """The run's folder, as the demo printed it."""
        found = re.search(r"^Run +(\S+)$", self.output, re.MULTILINE)
        assert found, self.output[-2000:]
        return ROOT / found.group(1)


@dataclass(frozen=True)
class Stack:
    """A stack of its own: its folder, its ports, the variables that choose them."""

    var: Path
    ports: dict[str, int]
    git_status: str
    variables: dict[str, str] = field(default_factory=dict)

    def make(self, verb: str, *arguments: str) -> Demo:
        """Run a verb of the Makefile to its successful end."""
        return self._timed(["make", "--no-print-directory", verb, *arguments])

    def demo(self, *arguments: str) -> Demo:
        """Run the demo's script with arguments that `make demo` does not pass."""
        return self._timed(["python3.11", "-m", "tools.local.demo", *arguments])

    def benchmark(self, *arguments: str) -> Demo:
        """Run a benchmark on this stack's archive."""
        return self._timed(["python3.11", "-m", "benchmarks.run", *arguments])

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `imagebatch` against this stack."""
        return subprocess.run(
            [CLI, *arguments], env=self.variables, cwd=ROOT, capture_output=True, text=True, check=False
        )

    def _timed(self, argv: list[str]) -> Demo:
        begun = time.monotonic()
        done = subprocess.run(
            argv,
            env=self.variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - begun
        print(f"{' '.join(argv)} took {seconds:.1f} s\n{done.stdout}")  # noqa: T201 - pytest shows it when a test fails
        assert done.returncode == 0, done.stdout[-4000:]
        return Demo(done.stdout, seconds)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Describe the stack, and stop it whatever happens."""
    var = tmp_path_factory.mktemp("var")
    sockets = [socket.socket() for _ in PORTS]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = {name: each.getsockname()[1] for name, each in zip(PORTS, sockets, strict=True)}
    for each in sockets:
        each.close()
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("IMAGEBATCH_", "AIRFLOW"))
    }
    chosen = {f"IMAGEBATCH_PORT_{name.upper()}": str(port) for name, port in ports.items()}
    stack = Stack(var, ports, git_status(), own | chosen | {"IMAGEBATCH_VAR": str(var)})
    yield stack
    subprocess.run(["make", "down"], env=stack.variables, cwd=ROOT, capture_output=True, check=False)


@pytest.fixture(scope="session")
def first(stack: Stack) -> Demo:
    """Run the whole demo once, from nothing in its folder."""
    return stack.make("demo")


def git_status() -> str:
    """Ask git what is not committed."""
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def status() -> str:
    """Ask git what is not committed, now."""
    return git_status()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of the machine."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the PATH: install one (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox wants a user namespace
        yield playwright.chromium.launch(executable_path=path, args=arguments)
