"""Vertex AI: the job's request without its cloud, and our serving container asked as its endpoints ask."""

import base64
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.chaos.torchserve import MODEL
from tests.system.kit.verdict import RefutedError, require
from tests.system.orchestrators import pipelines
from tests.system.orchestrators.ground import TAG, Ground, Went, need_engine, way
from tools.loopback import free_ports
from tools.paths import ROOT

SERVING = f"imagebatch-serving:{TAG}"
PORT = 9080  # in the container: not ours by default, so that the variable is what counts
HEALTH = f"/v1/models/{MODEL}/versions/1.0"
PREDICT = f"{HEALTH}:predict"
PATIENCE = 240.0
ASKED = 3


@way
def vertex_ai(ground: Ground) -> Went:
    """Vertex AI: the same pipeline as a request, and our serving container by its protocol."""
    need_engine(SERVING)
    checks = pipelines.checked(ground, "vertex")
    with _container(ground) as address:
        _require_predictions(ground, address)
        runs = ground.folder_of("vertex-ai")
        batch = ground.imagebatch(
            "vertex-ai",
            *("run", "--run-id=vertex", "--backend=kserve_v1", "--model-version=1.0", "--no-report"),
            f"--input={ground.photographs}",
            f"--model-card={ROOT / 'model_store' / MODEL}.json",
            IMAGEBATCH_RUNS_URI=str(runs),
            IMAGEBATCH_API_URL=address,
            IMAGEBATCH_KEY_FILE="",
        )
        require(batch.wait() == 0, f"`imagebatch run` failed: {batch.err[-500:]}")
    csv = (runs / "vertex" / "output" / "predictions.csv").read_bytes()
    return Went(csv, f"predictions by AIP_PREDICT_ROUTE; {checks}")


def _require_predictions(ground: Ground, address: str) -> None:
    """Ask as the platform does: instances in, a prediction for each out, one of them about a broken file."""
    files = [(ground.photographs / name).read_bytes() for name in ground.ids[:ASKED]] + [b"no image"]
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"instances": instances, "parameters": {"top_k": 1}}).encode()
    request = urllib.request.Request(address + PREDICT, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    require(set(answer) == {"predictions"}, f"not only predictions: {sorted(answer)}")
    shapes = [sorted(one) for one in answer["predictions"]]
    wanted = [["labels", "probabilities"]] * ASKED + [["error"]]
    require(shapes == wanted, f"predictions of another form: {shapes}")


@contextmanager
def _container(ground: Ground) -> Iterator[str]:
    """Start the serving image with the variables that Vertex AI sets; give its address here."""
    (port,) = free_ports(1)
    name = f"imagebatch-orchestrators-vertex-{port}"
    variables = {
        "AIP_HTTP_PORT": PORT,
        "AIP_HEALTH_ROUTE": HEALTH,
        "AIP_PREDICT_ROUTE": PREDICT,
        "IMAGEBATCH_MODEL_STORE": "/srv/model_store",
        "IMAGEBATCH_WORKERS": 2,
    }
    argv = [
        *("docker", "run", "--detach", "--name", name, "--read-only", "--tmpfs=/tmp:mode=1777,exec"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=4g", "--pids-limit=512"),
        f"--publish=127.0.0.1:{port}:{PORT}",
        f"--mount=type=bind,source={ground.store},target=/srv/model_store,readonly",
        *(f"--env={variable}={value}" for variable, value in variables.items()),
        SERVING,
        "serve",
    ]
    subprocess.run(argv, check=True, capture_output=True)
    try:
        _wait(name, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)


def _wait(name: str, address: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address + HEALTH, timeout=10):
            return
        time.sleep(0.5)
    logs = subprocess.run(["docker", "logs", name], check=False, capture_output=True, text=True)
    raise RefutedError(f"the serving container is not healthy: {(logs.stdout + logs.stderr)[-600:]}")
