from pathlib import Path

import pytest

from tools import properties
from tools.local import services
from tools.paths import PORTS


@pytest.fixture
def described() -> dict[str, services.Service]:
    """Describe the stack with some Java."""
    return {service.name: service for service in services.services(Path("/usr/bin/java"))}


def test_nothing_listens_beyond_loopback(described: dict[str, services.Service]) -> None:
    """Every address that a service is given is 127.0.0.1, and no log server is started."""
    config = properties.read(services.TORCHSERVE / "config.properties")
    addresses = {name: value for name, value in config.items() if name.endswith("_address")}
    assert {value.removeprefix("http://").split(":")[0] for value in addresses.values()} == {"127.0.0.1"}
    assert described["airflow-api-server"].environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert "--skip-serve-logs" in described["airflow-scheduler"].argv
    assert described["mlflow"].argv[described["mlflow"].argv.index("--host") + 1] == "127.0.0.1"


def test_torchserve_gets_this_stacks_ports_and_the_handlers_settings(
    described: dict[str, services.Service],
) -> None:
    """The effective configuration is the handlers' own with the site's keys put in."""
    config = properties.read(services.TORCHSERVE / "config.properties")
    assert described["torchserve"].argv[-1] == config["model_store"]
    assert config["inference_address"] == f"http://127.0.0.1:{PORTS['inference']}"
    assert config["metrics_mode"] == "prometheus"
    assert config["disable_token_authorization"] == "false"  # noqa: S105 - a switch, no password


def test_a_changed_input_changes_the_fingerprint(tmp_path: Path) -> None:
    """A service is restarted when a file that it reads at its start has changed, and only then."""
    archive = tmp_path / "a.mar"
    archive.write_bytes(b"1")
    service = services.Service("a", ["a"], tmp_path, {}, [], [], lambda: "", [archive])
    before = service.fingerprint()
    assert service.fingerprint() == before
    archive.write_bytes(b"2")
    assert service.fingerprint() != before


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
