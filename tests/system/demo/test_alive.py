"""The demo's stack under a burst of triggers, and after each of its services was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tools.airflow_api import AirflowApi

TRIGGERS = 20
# One and two tasks a run, where the batch DAG has eight and its runs wait for each other: every fifth is its.
SMALL = ("imagebatch_prune", "imagebatch_trends")
BATCH = "batch_image_inference"
BURST: tuple[tuple[str, dict[str, int]], ...] = tuple(
    (SMALL[number % 2], {}) if number % 5 else (BATCH, {"limit": 20}) for number in range(TRIGGERS)
)
BURST_SECONDS = 900
BACK_SECONDS = 60
SERVICES = (
    "torchserve",
    "postgres",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-api-server",
    "mlflow",
)


@pytest.fixture
def api(stack: Any, first: Any) -> AirflowApi:
    """Log in at the demo's Airflow."""
    assert first
    return login(stack)


def login(stack: Any) -> AirflowApi:
    """Log in anew: a token is the API server's own."""
    password = json.loads((stack.var / "airflow" / "passwords.json").read_text())["admin"]
    return AirflowApi(f"http://127.0.0.1:{stack.ports['airflow']}", "admin", password)


@pytest.fixture
def busy() -> Iterator[None]:
    """Keep every core busy with something else."""
    code = "while True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


def status(stack: Any) -> tuple[int, dict[str, list[str]]]:
    """Ask as a person does: the exit code, and a service's cells by its name."""
    done = subprocess.run(
        ["python3.11", "-m", "tools.local.stack", "status"],
        env=stack.variables,
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line]
    return done.returncode, {line[0]: line[1:] for line in lines}


def record(stack: Any, service: str) -> dict[str, Any]:
    """Read what the supervisor has recorded of a service."""
    found: dict[str, Any] = json.loads((stack.var / "services" / f"{service}.json").read_text())
    return found


def test_twenty_triggers_at_once_are_queued_and_succeed(stack: Any, api: AirflowApi, busy: None) -> None:
    """While all cores are busy: every trigger is taken, every run succeeds, and no service has died."""
    assert busy is None
    for dag in (*SMALL, BATCH):
        api.wait_for_dag(dag)

    with ThreadPoolExecutor(TRIGGERS) as executor:
        started = [executor.submit(api.trigger, dag, conf) for dag, conf in BURST]
    deadline = time.monotonic() + BURST_SECONDS
    states = [api.wait(each.result(), deadline - time.monotonic()) for each in started]
    assert states == ["success"] * TRIGGERS
    code, services = status(stack)
    assert code == 0, services
    assert [record(stack, name)["restarts"] for name in SERVICES] == [0] * len(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_is_back_within_a_minute(stack: Any, first: Any, service: str) -> None:
    """SIGKILL to its leader: another process answers, the restart is counted, and the log goes on."""
    assert first
    before = record(stack, service)
    log = stack.var / "logs" / f"{service}.log"
    written = log.read_bytes()
    os.kill(before["pid"], signal.SIGKILL)
    killed = time.monotonic()
    while record(stack, service)["pid"] == before["pid"] or status(stack)[0] != 0:
        assert time.monotonic() - killed < BACK_SECONDS, (status(stack), log.read_text()[-2000:])
        time.sleep(0.5)
    after = record(stack, service)
    assert after["restarts"] == before["restarts"] + 1
    assert "was killed by SIGKILL" in after["died"]
    assert log.read_bytes().startswith(written)
