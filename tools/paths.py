"""Where everything is, and how these scripts speak: paths, ports, programs, progress lines.

Run by the system's Python before any environment exists: standard library only, here and in every script
beside it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeAlias

Argv: TypeAlias = list[str | Path]  # program and arguments, never through a shell

ROOT = Path(__file__).resolve().parent.parent
# Runs, data, logs, databases. Another folder (and other ports) lets a second stack run beside the first.
VAR = Path(os.environ.get("IMAGEBATCH_VAR") or ROOT / "var").resolve()
# Tools are shared by all stacks of a checkout.
UV = ROOT / "var" / "uv" / "bin" / "uv"
JAVA_FOLDER = ROOT / "var" / "java"
LAST_PORT = 65_535
CONFIGURATION = 78  # exit code, docs/reference/protocol.md


def say(text: str) -> None:
    """Print one line at once, even into a pipe, and whole, also beside another thread's."""
    print(f"{text}\n", end="", flush=True)


def fail(text: str, code: int = CONFIGURATION) -> NoReturn:
    """End the script with one line on standard error."""
    print(f"error: {text}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def port(variable: str, default: int) -> int:
    """Read a port from a variable; one that is none ends the script."""
    text = os.environ.get(variable) or str(default)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= LAST_PORT):
        fail(f"{variable}={text!r} is no port: give a number from 1 to {LAST_PORT}")
    return int(text)


PORTS = {
    name: port(f"IMAGEBATCH_PORT_{name.upper()}", default)
    for name, default in {
        "inference": 8080,
        "management": 8081,
        "metrics": 8082,
        "airflow": 8088,
        "mlflow": 5000,
        "postgres": 15432,  # not 5432, where a machine's own PostgreSQL listens
        # TorchServe opens these two without being asked, and numbers its workers' sockets from the third.
        "grpc_inference": 7070,
        "grpc_management": 7071,
        "workers": 9000,
    }.items()
}


def url(port: str, path: str = "") -> str:
    """Build the loopback address of a service; `port` is a key of `PORTS`."""
    return f"http://127.0.0.1:{PORTS[port]}{path}"


def program(part: str, name: str) -> Path:
    """Find a program of a part's environment."""
    return ROOT / part / ".venv" / "bin" / name


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how many seconds a step took, when it is done."""
    begun = time.monotonic()
    yield
    say(f"{name:<34}{time.monotonic() - begun:7.1f} s")


def run(argv: list[str | Path], *, quiet: bool = False, environment: Mapping[str, str] | None = None) -> str:
    """Run a program from the repository's root to its end, or end this script.

    Args:
        argv: program and arguments.
        quiet: keep its output back, and print it only if the program fails.
        environment: variables added to this script's own.

    Returns:
        Its standard output where `quiet`, else an empty string.

    Raises:
        SystemExit: with the program's exit code, if that is not 0.
    """
    kept = subprocess.PIPE if quiet else None
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=kept,
        stderr=kept,
        text=True,
        check=False,
    )
    if done.returncode:
        if quiet:
            tail = (done.stdout + done.stderr).strip().splitlines()[-30:]
            print("\n".join(tail), file=sys.stderr)
        fail(
            f"{Path(argv[0]).name} {argv[1] if len(argv) > 1 else ''} ended with {done.returncode}",
            done.returncode,
        )
    return done.stdout or ""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(
        os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as stream:
        stream.write(text)
    part.replace(path)
