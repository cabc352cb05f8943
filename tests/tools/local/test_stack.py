import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tools.paths import ROOT

NAMES = (
    "INFERENCE",
    "MANAGEMENT",
    "METRICS",
    "AIRFLOW",
    "MLFLOW",
    "POSTGRES",
    "GRPC_INFERENCE",
    "GRPC_MANAGEMENT",
)
SERVICES = (
    "torchserve",
    "postgres",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-api-server",
    "mlflow",
)


def free_ports(count: int) -> list[int]:
    """Ask the kernel for ports that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def stack(verb: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the stack's script as `make` does, on ports and in a folder of its own."""
    ports = {
        f"IMAGEBATCH_PORT_{name}": str(port) for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)
    }
    environment = os.environ | ports | {"IMAGEBATCH_VAR": str(folder)} | variables
    return subprocess.run(
        [sys.executable, "-m", "tools.local.stack", verb],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_busy_port_is_one_clear_line_and_nothing_is_started(tmp_path: Path) -> None:
    """Somebody else's port stops `up` before anything runs, with the configuration's exit code."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = stack("up", tmp_path, IMAGEBATCH_PORT_MLFLOW=str(port))
    assert done.returncode == 78
    assert str(port) in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("services/*"))


def test_a_missing_java_is_one_clear_line(tmp_path: Path) -> None:
    """Without any Java `up` says what to do."""
    done = stack("up", tmp_path, PATH=str(tmp_path), JAVA_HOME="")
    if (ROOT / "var" / "java").exists():
        pytest.skip("this checkout has a Java of its own")
    assert done.returncode == 78
    assert "Java" in done.stderr
    assert done.stderr.count("\n") == 1


def test_down_without_a_stack_is_content(tmp_path: Path) -> None:
    """Stopping what does not run is no error."""
    done = stack("down", tmp_path)
    assert (done.returncode, done.stdout) == (0, "nothing is running\n")


def test_status_of_a_stopped_stack_lists_every_service(tmp_path: Path) -> None:
    """Each service is named with its address and log, each is down, and the exit code says so."""
    done = stack("status", tmp_path)
    assert done.returncode == 1
    head, *lines = [line.split() for line in done.stdout.splitlines()]
    assert head == ["service", "state", "pid", "since", "restarts", "address", "log"]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        (name, "down", str(tmp_path / "logs" / f"{name}.log")) for name in ("supervisor", *SERVICES)
    ]
    assert [line[2].split(":")[0] for line in lines if len(line) == 4] == ["127.0.0.1"] * 4


def test_status_is_told_while_another_verb_works(tmp_path: Path) -> None:
    """Who waits for `make up` may look how far it is."""
    with (tmp_path / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = stack("status", tmp_path)
    assert "airflow-scheduler" in done.stdout


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    """While one `up` or `down` works, another says so and ends."""
    with (tmp_path / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = stack("down", tmp_path)
    assert done.returncode == 75
    assert "at work" in done.stderr


def test_secrets_are_private_and_stay_the_same(tmp_path: Path) -> None:
    """What is generated can be read by its owner only, and the next start finds the same."""
    seen = []
    for _ in range(2):
        stack("status", tmp_path)
        files = [tmp_path / "airflow" / name for name in ("passwords.json", "secrets.json")]
        assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
        seen.append([path.read_text() for path in files])
    assert seen[0] == seen[1]
