"""From inside a stage's container nothing can be reached but the model API and the runs."""

import json
from collections.abc import Callable
from typing import Any

import pytest

PORTS = {
    "postgres": (5432,),
    "engine-proxy": (2375,),
    "airflow-api-server": (8080,),
    "mlflow": (5000,),
    "torchserve": (8081, 8082, 7070, 7071),
}
NAMES = (
    "postgres",
    "engine-proxy",
    "airflow-api-server",
    "mlflow",
    "torchserve-management",
    "torchserve-metrics",
)
CONNECT = """
import json, socket
reached = []
for host, port in json.loads({targets!r}):
    try:
        socket.create_connection((host, port), timeout=1).close()
        reached.append([host, port])
    except OSError:
        pass
print(json.dumps(reached))
"""
WRITE = """
import json, pathlib
written = []
data = ["/data/inputs", "/data/model_store", "/run/imagebatch/keys", "/data/runs"]
for folder in ["/", "/opt/imagebatch", "/etc", *data]:
    try:
        path = pathlib.Path(folder, "attempt")
        path.write_text("x")
        path.unlink()
        written.append(folder)
    except OSError:
        pass
print(json.dumps(written))
"""


@pytest.fixture(scope="module")
def addresses(containers: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """List the addresses of each service, on all its networks."""
    return {
        name: [
            network["IPAddress"]
            for network in each["NetworkSettings"]["Networks"].values()
            if network["IPAddress"]
        ]
        for name, each in containers.items()
    }


def test_the_model_api_is_reached(python_in_stage: Callable[[str], Any]) -> None:
    """What a stage is for does work from this container, so that the next tests mean something."""
    assert python_in_stage(CONNECT.format(targets=json.dumps([("torchserve", 8080)]))) == [
        ["torchserve", 8080]
    ]


def test_no_other_service_is_reached(
    python_in_stage: Callable[[str], Any], addresses: dict[str, list[str]]
) -> None:
    """Management and metrics API, metadata database, engine, Airflow, MLflow: by name and by any address."""
    targets = [(name, port) for name in NAMES for port in (8080, 8081, 8082, 5432, 2375, 5000)]
    targets += [
        (address, port) for name, ports in PORTS.items() for address in addresses[name] for port in ports
    ]
    assert len(targets) > 40
    assert python_in_stage(CONNECT.format(targets=json.dumps(targets))) == []


def test_neither_the_machine_nor_the_internet_is_reached(
    python_in_stage: Callable[[str], Any], stage: dict[str, Any], containers: dict[str, dict[str, Any]]
) -> None:
    """Not the machine's end of any bridge, at the published ports or at ssh, and no address beyond."""
    bridges = {
        network["Gateway"]
        for each in (stage, *containers.values())
        for network in each["NetworkSettings"]["Networks"].values()
        if network["Gateway"]
    }
    bound = containers["airflow-api-server"]["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostPort"]
    targets = [(bridge, port) for bridge in bridges for port in (22, 2375, 2376, int(bound))]
    targets += [("1.1.1.1", 443), ("151.101.0.223", 443), ("pypi.org", 443), ("169.254.169.254", 80)]
    assert python_in_stage(CONNECT.format(targets=json.dumps(targets))) == []


def test_only_the_runs_can_be_written(python_in_stage: Callable[[str], Any]) -> None:
    """The image, the inputs, the models and the keys cannot."""
    assert python_in_stage(WRITE) == ["/data/runs"]


def test_no_socket_of_the_engine_is_there(in_stage: Callable[..., Any]) -> None:
    """There is nothing to talk to the engine with."""
    assert in_stage("sh", "-c", "ls /var/run/docker.sock /run/docker.sock").code != 0


def test_only_the_inference_key_is_there(python_in_stage: Callable[[str], Any]) -> None:
    """Even if the management API were reached, its key is not known here."""
    script = "import json; print(json.dumps(sorted(json.load(open('/run/imagebatch/keys/key_file.json')))))"
    assert python_in_stage(script) == ["inference"]


@pytest.mark.parametrize("name", ["../{run}", "..%2f{run}", "/data/runs/{run}", "x/../{run}", "{run}/", "."])
def test_a_run_id_cannot_leave_its_folder(in_stage: Callable[..., Any], run_folder: str, name: str) -> None:
    """A run id that is a path is wrong usage, before anything is read or written."""
    assert in_stage("imagebatch", "verify", f"--run-id={name.format(run=run_folder)}").code == 2


@pytest.mark.parametrize(
    "path",
    [
        "/data/runs/{run}/output",
        "/data/inputs/../runs/{run}/output",
        "/data/inputs/solar-cells/images/../../../runs/{run}/output",
        "file:///data/runs/{run}/output",
        "/data/runs/{run}/output/predictions.csv",
        "/run/imagebatch/keys",
        "/proc/self",
    ],
)
def test_another_runs_files_are_no_input(in_stage: Callable[..., Any], run_folder: str, path: str) -> None:
    """Whatever the spelling, an input outside the allowed folder is refused as a wrong configuration."""
    ended = in_stage(
        "imagebatch",
        "preprocess",
        "--run-id=attempt",
        f"--input={path.format(run=run_folder)}",
        "--include=*",
    )
    assert ended.code == 78, ended.output
    assert in_stage("sh", "-c", "ls /data/runs/attempt").code != 0


def test_a_manifest_cannot_name_another_runs_files(in_stage: Callable[..., Any], run_folder: str) -> None:
    """A manifest is data: its rows are held to the allowed folder one by one, or it is refused as a whole."""
    script = (
        f"printf 'uri\\n/data/runs/{run_folder}/output/predictions.csv\\n' > /tmp/m.csv;"
        " imagebatch preprocess --run-id=attempt --manifest=/tmp/m.csv; code=$?;"
        " rm -rf /data/runs/attempt; exit $code"
    )
    ended = in_stage("sh", "-c", script)
    assert ended.code in {65, 78}, ended.output
