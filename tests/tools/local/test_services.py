import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools import properties
from tools.local import processes, services
from tools.paths import PORTS


@pytest.fixture
def described() -> dict[str, services.Service]:
    """Describe the stack with some Java."""
    return {service.name: service for service in services.services(Path("/usr/bin/java"))}


def torchserves(described: dict[str, services.Service]) -> dict[str, str]:
    """Let TorchServe's configuration be written, and read it."""
    described["torchserve"].prepare()
    return properties.read(services.TORCHSERVE / "config.properties")


def test_nothing_listens_beyond_loopback(described: dict[str, services.Service]) -> None:
    """Every address that a service is given is 127.0.0.1, and no log server is started."""
    config = torchserves(described)
    addresses = {name: value for name, value in config.items() if name.endswith("_address")}
    assert {value.removeprefix("http://").split(":")[0] for value in addresses.values()} == {"127.0.0.1"}
    assert described["airflow-api-server"].environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert "--skip-serve-logs" in described["airflow-scheduler"].argv
    assert described["mlflow"].argv[described["mlflow"].argv.index("--host") + 1] == "127.0.0.1"
    assert "listen_addresses=127.0.0.1" in described["postgres"].argv


def test_torchserve_gets_this_stacks_ports_and_the_handlers_settings(
    described: dict[str, services.Service],
) -> None:
    """The effective configuration is the handlers' own with the site's keys put in."""
    config = torchserves(described)
    assert described["torchserve"].argv[-1] == config["model_store"]
    assert config["inference_address"] == f"http://127.0.0.1:{PORTS['inference']}"
    assert config["metrics_mode"] == "prometheus"
    assert config["disable_token_authorization"] == "false"  # noqa: S105 - a switch, no password


def test_airflow_waits_for_its_database_and_stops_before_it(
    described: dict[str, services.Service],
) -> None:
    """Each of Airflow's processes needs PostgreSQL's port, and PostgreSQL alone is stopped last."""
    needing = [name for name, each in described.items() if PORTS["postgres"] in each.needs]
    assert needing == ["airflow-scheduler", "airflow-dag-processor", "airflow-api-server"]
    assert [name for name, each in described.items() if each.base] == ["postgres"]


def test_describing_the_stack_writes_nothing_that_a_service_reads() -> None:
    """`make status` from a terminal with other settings leaves a running TorchServe's configuration alone."""
    config = services.TORCHSERVE / "config.properties"
    config.unlink(missing_ok=True)
    for service in services.services(Path("/usr/bin/java")):
        service.fingerprint()
    assert not config.exists()


def test_a_changed_configuration_changes_the_fingerprint(tmp_path: Path) -> None:
    """What is written for a service before its start counts as what it is started with."""
    before, after = (
        services.Service("a", ["a"], tmp_path, {}, [], [], lambda: "", configuration=text).fingerprint()
        for text in ("a=1", "a=2")
    )
    assert before != after


def test_a_changed_input_changes_the_fingerprint(tmp_path: Path) -> None:
    """A service is restarted when a file that it reads at its start has changed, and only then."""
    archive = tmp_path / "a.mar"
    archive.write_bytes(b"1")
    service = services.Service("a", ["a"], tmp_path, {}, [], [], lambda: "", [archive])
    before = service.fingerprint()
    assert service.fingerprint() == before
    archive.write_bytes(b"2")
    assert service.fingerprint() != before


@pytest.fixture
def beating(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Serve Airflow's page of health with a heartbeat of the scheduler; called with its age in seconds."""
    told: dict[str, Any] = {}

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            pass

    def beat(age: float | None, status: str = "healthy") -> None:
        when = None if age is None else datetime.fromtimestamp(time.time() - age, UTC).isoformat()
        told["scheduler"] = {"status": status, "latest_scheduler_heartbeat": when}

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        monkeypatch.setitem(PORTS, "airflow", server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield beat
        server.shutdown()
        thread.join()


def test_a_scheduler_is_healthy_from_its_own_heartbeat_on(
    described: dict[str, services.Service], beating: Any
) -> None:
    """Airflow calls one healthy that was killed a moment ago; here only a beat of the new process counts."""
    scheduler = described["airflow-scheduler"]
    beating(age=5)
    assert scheduler.healthy() == ""
    record = processes.Record("airflow-scheduler", 1, 1, "boot", "1", since=time.time() - 2)
    record.save()
    try:
        assert scheduler.healthy() == "scheduler is starting"
        beating(age=1)
        assert scheduler.healthy() == ""
        beating(age=None)
        assert scheduler.healthy() == "scheduler is starting"
        beating(age=40, status="unhealthy")
        assert scheduler.healthy() == "scheduler is unhealthy"
    finally:
        record.forget()


def test_another_terminal_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under make, and from a terminal with other variables, a running stack is still the wanted one."""
    before = [service.fingerprint() for service in services.services(Path("/usr/bin/java"))]
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("SSH_TTY", "/dev/pts/7")
    monkeypatch.setenv("PATH", "/elsewhere:/usr/bin:/bin")
    assert [service.fingerprint() for service in services.services(Path("/usr/bin/java"))] == before


def test_another_programs_airflow_settings_do_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own Airflow variables do not change this stack's."""
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    monkeypatch.setenv("AIRFLOW__SMTP__SMTP_HOST", "elsewhere")
    (scheduler,) = [each for each in services.services(Path("java")) if each.name == "airflow-scheduler"]
    environment = scheduler.environment
    assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert "AIRFLOW__SMTP__SMTP_HOST" not in environment
