"""The two serving images as a pod of KServe starts them, on the storage that `imagebatch-train layout` makes.

No cluster: the engine starts each container with the variables, arguments and probe of its ServingRuntime,
with the storage at /mnt/models, read-only, and what the restricted standard of pod security leaves.
"""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from imagebatch import cli

from tests.support.handler_archives import write_archive
from tests.support.images import jpeg
from tools.compose.stack import present
from tools.loopback import free_ports
from tools.paths import ROOT, program

KSERVE = ROOT / "deploy" / "kserve"
RUNTIMES = {
    "imagebatch-serving": KSERVE / "base" / "serving-runtime.yaml",
    "imagebatch-kserve": KSERVE / "components" / "predictor" / "serving-runtime.yaml",
}
MODEL = "solar-cells"
IMAGES = 60
CONFINED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=512"]
PATIENCE = 240.0
# Whether an address of the container's own network answers on TorchServe's ports.
PROBE = """
import json, socket
own = socket.gethostbyname(socket.gethostname())
def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex((own, port)) == 0
print(json.dumps({port: answers(port) for port in (8080, 8081, 7070, 7071)}))
"""


@dataclass(frozen=True)
class Ground:
    """What the containers are held to.

    Attributes:
        folder: For runs.
        images: Photographs, one of them broken.
        storage: The layout of the model.
        reference: predictions.csv of the archive's own handler, in this machine's processes.
    """

    folder: Path
    images: Path
    storage: Path
    reference: bytes

    def scored(self, run_id: str, *flags: str) -> bytes:
        """Score the images; return predictions.csv."""
        return scored(self.folder, self.images, run_id, *flags)


def scored(folder: Path, images: Path, run_id: str, *flags: str) -> bytes:
    where = [f"--run-id={run_id}", f"--runs-uri={folder / 'runs'}"]
    assert cli.call(["preprocess", *where, f"--input={images}", f"--model={MODEL}", *flags]) == 0
    assert cli.call(["score", *where, *(flag for flag in flags if "--backend" not in flag)]) == 0
    assert cli.call(["postprocess", *where]) == 0
    output = folder / "runs" / run_id / "output"
    assert "\ntruncated.jpg," in (output / "failures.csv").read_text()
    return (output / "predictions.csv").read_bytes()


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("kserve")
    images = folder / "images"
    images.mkdir()
    for seed in range(IMAGES):
        (images / f"{seed:03}.jpg").write_bytes(jpeg(seed, (160 + seed % 7, 120)))
    whole = jpeg(IMAGES, (160, 120))
    (images / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    archive = write_archive(folder)
    layout = [program("training", "imagebatch-train"), "layout", f"--archive={archive}", f"--folder={folder}"]
    subprocess.run(layout, cwd=ROOT, check=True, capture_output=True)
    reference = scored(folder, images, "reference", "--backend=local", f"--model-archive={archive}")
    assert reference.count(b"\n") == IMAGES + 1
    return Ground(folder, images, folder / MODEL / "torchserve", reference)


@pytest.fixture
def container(request: pytest.FixtureRequest, ground: Ground) -> Iterator[tuple[str, str]]:
    """Start an image as its runtime says; give its name and the address of its port 8080."""
    image = request.param
    if not present(f"{image}:latest"):
        pytest.skip(f"no image {image} on an engine here: make images")
    (spec,) = yaml.safe_load(RUNTIMES[image].read_text("utf-8"))["spec"]["containers"]
    (port,) = free_ports(1)
    name = f"imagebatch-test-{image}-{port}"
    security, limits = spec["securityContext"], spec["resources"]["limits"]
    argv = [
        *("docker", "run", "--detach", "--name", name, *CONFINED, "--tmpfs=/tmp:mode=1777,exec"),
        f"--user={security['runAsUser']}:{security['runAsGroup']}",
        *(f"--memory={limits['memory'].lower().removesuffix('i')}", f"--publish=127.0.0.1:{port}:8080"),
        f"--mount=type=bind,source={ground.storage},target=/mnt/models,readonly",
        *(f"--env={one['name']}={one['value']}" for one in spec["env"]),
        f"{image}:latest",
        *(spec.get("command", [])),
        *(argument.replace("{{.Name}}", MODEL) for argument in spec.get("args", [])),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    try:
        _wait_until_ready(name, spec["readinessProbe"], f"http://127.0.0.1:{port}")
        yield name, f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)


def _wait_until_ready(name: str, probe: dict[str, Any], address: str) -> None:
    if "exec" in probe:
        command = ["docker", "exec", name, *probe["exec"]["command"]]
    else:
        path = probe["httpGet"]["path"].replace("{{.Name}}", MODEL)
        asks = f"import urllib.request as u; u.urlopen('{address}{path}', timeout=5)"
        command = ["python3.11", "-c", asks]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return
        state = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.Running}}", name],
            check=False,
            capture_output=True,
            text=True,
        )
        if state.stdout.strip() != "true":
            break
        time.sleep(0.5)
    logs = subprocess.run(["docker", "logs", name], check=False, capture_output=True, text=True)
    pytest.fail(f"{name} is not ready: {(logs.stdout + logs.stderr)[-3000:]}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("container", ["imagebatch-serving"], indirect=True)
def test_torchserve_on_the_storage_gives_the_table(container: tuple[str, str], ground: Ground) -> None:
    """A run that asks it gives the reference to the byte, digest included; and of its APIs the management is
    not to be reached from another pod.
    """
    name, address = container
    assert ground.scored("torchserve", f"--api-url={address}") == ground.reference
    probed = subprocess.run(
        ["docker", "exec", name, "python", "-c", PROBE], check=True, capture_output=True, text=True
    )
    assert yaml.safe_load(probed.stdout) == {"8080": True, "8081": False, "7070": False, "7071": False}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("container", ["imagebatch-kserve"], indirect=True)
def test_kserves_server_on_the_storage_gives_the_table(container: tuple[str, str], ground: Ground) -> None:
    """By V2 and by V1, without a model card: labels, version and digest are what the server tells."""
    name, address = container
    assert ground.scored("v2", "--backend=oip", f"--api-url={address}") == ground.reference
    assert ground.scored("v1", "--backend=kserve_v1", f"--api-url={address}") == ground.reference
    health = ["docker", "exec", name, "python", "-m", "imagebatch_kserve.health"]
    assert subprocess.run(health, check=False, capture_output=True).returncode == 0
