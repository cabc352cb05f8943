"""What each container may do, read from `docker inspect` of the running stack."""

import os
from typing import Any

import pytest

from tools.compose.security_table import (
    PAGE,
    PASSAGE,
    capabilities,
    mounts,
    networks,
    published,
    table,
    written,
)
from tools.compose.stack import Stack

SEVERAL = {"airflow-worker", "redis"}  # of the profile celery
WATCHERS = {"alertmanager", "prometheus", "pushgateway", "statsd"}  # of the profile monitoring
SERVICES = (
    WATCHERS
    | SEVERAL
    | {
        "airflow-api-server",
        "airflow-dag-processor",
        "airflow-init",
        "airflow-scheduler",
        "airflow-triggerer",
        "engine-proxy",
        "mlflow",
        "postgres",
        "stage-image",
        "torchserve",
    }
)


@pytest.fixture(scope="module")
def everything(containers: dict[str, dict[str, Any]], stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Put a stage's container beside those of the services."""
    return containers | {"a stage": stage}


def test_no_container_is_forgotten(containers: dict[str, dict[str, Any]]) -> None:
    """The stack consists of these services: a new one is looked at here before it ships."""
    assert set(containers) == SERVICES


def test_nobody_is_root(everything: dict[str, dict[str, Any]]) -> None:
    """Each container names an ordinary user; ours a numeric one."""
    users = {name: each["Config"]["User"] for name, each in everything.items()}
    assert [users.pop(name) for name in ("postgres", "redis")] == ["postgres", "redis"]
    assert {users.pop(name) for name in WATCHERS} == {"65534:65534"}
    assert {user.split(":")[0] for user in users.values()} == {"10001"}


def test_nobody_has_capabilities_or_can_gain_any(everything: dict[str, dict[str, Any]]) -> None:
    """All capabilities dropped, none added, none to be had from a set-uid program, no shared namespaces."""
    for name, each in everything.items():
        host = each["HostConfig"]
        assert capabilities(host) == "none, no new ones", name
        assert not host["Devices"], name
        assert {host["PidMode"], host["UTSMode"], host["UsernsMode"]} == {""}, name
        assert host["IpcMode"] == "private", name
        assert host["NetworkMode"] != "host", name


def test_root_file_systems_cannot_be_written(everything: dict[str, dict[str, Any]]) -> None:
    """Whoever breaks in leaves nothing behind in the image's files."""
    assert [name for name, each in everything.items() if not each["HostConfig"]["ReadonlyRootfs"]] == []


def test_memory_processes_and_logs_are_bounded(everything: dict[str, dict[str, Any]]) -> None:
    """No container can take the machine's memory, process table or disk."""
    for name, each in everything.items():
        host = each["HostConfig"]
        assert 0 < host["Memory"] <= 4 * 2**30, name
        assert 0 < host["PidsLimit"] <= 512, name
        assert {"max-size", "max-file"} <= set(host["LogConfig"]["Config"]), name


def test_only_pages_for_people_are_published_on_loopback(
    everything: dict[str, dict[str, Any]], stack: Stack
) -> None:
    """Airflow, MLflow, Prometheus and Alertmanager, on 127.0.0.1; nothing else is reachable from outside."""
    found = {name: published(each["HostConfig"]) for name, each in everything.items()}
    assert {name: ports for name, ports in found.items() if ports} == {
        "airflow-api-server": "8080 on 127.0.0.1",
        "alertmanager": "9093 on 127.0.0.1",
        "prometheus": "9090 on 127.0.0.1",
        "mlflow": "5000 on 127.0.0.1",
    }
    assert stack.settings["AIRFLOW_PORT"]


def test_the_engines_socket_is_in_one_container(everything: dict[str, dict[str, Any]]) -> None:
    """The proxy alone sees the socket, and who starts stages alone sees the proxy: scheduler and worker."""
    holders = {
        name
        for name, each in everything.items()
        if any("docker.sock" in mount["Destination"] for mount in each["Mounts"])
    }
    assert holders == {"engine-proxy"}
    neighbours = {
        name for name, each in everything.items() if "engine" in networks(each, name_of(each, everything))
    }
    assert neighbours == {"engine-proxy", "airflow-scheduler", "airflow-worker"}


def test_a_worker_knows_no_key_and_no_database_of_airflow(containers: dict[str, dict[str, Any]]) -> None:
    """What runs tasks has the passwords of broker and results, and none that signs, decrypts or logs in."""
    told = dict(each.split("=", 1) for each in containers["airflow-worker"]["Config"]["Env"])
    servers = dict(each.split("=", 1) for each in containers["airflow-scheduler"]["Config"]["Env"])
    kept = (
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__API__SECRET_KEY",
    )
    assert [name for name in kept if servers[name] in told.values()] == []
    assert "//celery:" in told["AIRFLOW__CELERY__RESULT_BACKEND"]


def name_of(found: dict[str, Any], everything: dict[str, dict[str, Any]]) -> str:
    """Give the project's name; a stage's container has it from its network."""
    assert found
    return str(everything["postgres"]["Config"]["Labels"]["com.docker.compose.project"])


def test_a_stage_sees_its_files_and_the_model_api(stage: dict[str, Any], stack: Stack) -> None:
    """One network; inputs, models and keys that it cannot write; the runs; a bounded /tmp."""
    assert networks(stage, stack.project) == ["inference"]
    seen = [text.split(" (")[0] for text in mounts(stage, stack.project)]
    assert seen == [
        "`/data/inputs` read-only",
        "`/data/model_store` read-only",
        "`/data/runs` read-write",
        "`/run/imagebatch/keys` read-only",
        "`/tmp`",
    ]


def test_the_documented_table_is_the_truth(everything: dict[str, dict[str, Any]], stack: Stack) -> None:
    """docs/reference/security.md says what the engine says."""
    if os.environ.get("IMAGEBATCH_WRITE_DOCS"):
        written(PAGE, table(everything, stack.project))
    found = PASSAGE.search(PAGE.read_text(encoding="utf-8"))
    assert found
    assert found[0].split("\n", 1)[1].removesuffix("<!-- end -->").strip() == table(everything, stack.project)
