"""What can be read from the Dockerfiles and docker-compose.yaml without an engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.compose import env, images
from tools.paths import ROOT

COMPOSE = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
DOCKERFILES = sorted({image.dockerfile for image in images.IMAGES})


@pytest.fixture(params=DOCKERFILES)
def dockerfile(request: pytest.FixtureRequest) -> str:
    """Read each Dockerfile."""
    return (ROOT / request.param).read_text(encoding="utf-8")


def test_the_last_user_is_a_number(dockerfile: str) -> None:
    """Kubernetes can tell from a number alone that it is not root."""
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)[-1] == "10001:10001"


def test_bases_are_arguments_with_public_defaults(dockerfile: str) -> None:
    """A closed registry takes the place of the public one by a build argument."""
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    assert {base for base in bases if base not in stages} <= {"${PYTHON_IMAGE}", "scratch"}
    assert "ARG PYTHON_IMAGE=python:3.11-slim-bookworm\n" in dockerfile


def test_what_is_installed_is_locked(dockerfile: str) -> None:
    """uv's version is pinned, and it takes what the lock says."""
    assert re.search(r"^ARG UV_VERSION=\d+\.\d+\.\d+$", dockerfile, re.MULTILINE)
    syncs = re.findall(r"uv sync (\S+)", dockerfile)
    assert syncs
    assert set(syncs) == {"--frozen"}


def test_the_last_stage_says_what_it_is(dockerfile: str) -> None:
    """The labels that registries and scanners read."""
    last = dockerfile.rpartition("\nFROM ")[2]
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in last, label


def test_no_image_has_an_entry_point(dockerfile: str) -> None:
    """Kubeflow and SageMaker give whole commands."""
    assert not re.search(r"^ENTRYPOINT", dockerfile, re.MULTILINE)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_build_sees_only_what_is_named(name: str) -> None:
    """Everything is excluded first: a secret in the checkout cannot get into an image."""
    lines = (ROOT / f"{name}.dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"


def test_no_secret_has_a_default() -> None:
    """Compose refuses to start without each of them, and says what to do."""
    used = dict(re.findall(r"\$\{([A-Z0-9_]+)(:[^}]*)?\}", COMPOSE))
    for name in (*env.SECRETS, "AIRFLOW_FERNET_KEY"):
        assert used[name] == ":?run make env", name


def test_what_make_env_writes_is_what_compose_wants() -> None:
    """Every variable without a default is made by `make env`."""
    wanted = {
        name for name, default in re.findall(r"\$\{([A-Z0-9_]+)(:[^}]*)?\}", COMPOSE) if ":?" in default
    }
    assert wanted <= set(env.settings(Path("/var/run/docker.sock")))


def test_one_variable_chooses_the_executor() -> None:
    """Without it, tasks are processes of the scheduler as ever; every process of Airflow is told the same."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    told = {
        name: service["environment"]["AIRFLOW__CORE__EXECUTOR"]
        for name, service in services.items()
        if name.startswith("airflow-")
    }
    assert len(told) == 6
    assert set(told.values()) == {"${IMAGEBATCH_EXECUTOR:-imagebatch_dags.executor.KeepingLocalExecutor}"}


def test_the_broker_is_on_a_network_of_its_own() -> None:
    """Nobody but the scheduler and the workers reaches Redis, and no port of it is published."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    near = {name for name, service in services.items() if "broker" in service.get("networks", ())}
    assert near == {"redis", "airflow-scheduler", "airflow-worker"}
    assert services["redis"]["networks"] == ["broker"]
    assert "ports" not in services["redis"]


def test_a_worker_is_told_no_secret_of_airflow() -> None:
    """Its variables name the passwords of the broker and of the results, and no other."""
    worker = yaml.safe_load(COMPOSE)["services"]["airflow-worker"]
    told = set(re.findall(r"\$\{([A-Z0-9_]+)", str(worker["environment"])))
    assert told & {*env.SECRETS, "AIRFLOW_FERNET_KEY"} == {"REDIS_PASSWORD", "CELERY_DATABASE_PASSWORD"}


@pytest.mark.parametrize("name", ["first-machine", "second-machine", "store"])
def test_what_further_machines_want_is_asked_for(name: str) -> None:
    """Addresses and credentials have no default; what is published is on one address of the machine."""
    text = (ROOT / "deploy" / "celery" / f"{name}.yaml").read_text(encoding="utf-8")
    overlay = yaml.safe_load(text.replace("!override", ""))
    assert set(overlay["services"]) <= set(yaml.safe_load(COMPOSE)["services"])
    for variable in re.findall(r"\$\{([A-Z0-9_]+)\}", text):
        assert f"${{{variable}:?" in text, variable
    published = [port for service in overlay["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("${IMAGEBATCH_PRIVATE_ADDRESS:?") for port in published)


def test_every_service_is_confined() -> None:
    """A service of any profile is confined, limited and healthy-checked, or ends by itself."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["restart"] == "no" or "healthcheck" in service, name
        for port in service.get("ports", []):
            assert re.match(r"127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+$", port), name


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        (
            ["torch-2.9.1+cpu-cp311-cp311-x.whl", "torch-2.13.0+cpu-cp311-cp311-x.whl"],
            ["2.9.1", "2.13.0"],
        ),
        (["torch-2.13.0-cp311-cp311-x.whl", "torch-2.13.0+cpu-cp312-cp312-x.whl"], []),
    ],
)
def test_the_newest_fitting_wheel_is_taken(tmp_path: Path, names: list[str], newest: list[str]) -> None:
    """Versions compare as numbers; wheels with CUDA or for another Python do not count."""
    for name in names:
        (tmp_path / name).touch()
    assert images.wheel_versions(tmp_path) == newest
