"""SageMaker: its pipeline's jobs in the SDK's local mode, with moto in the place of S3, and no AWS at all."""

import subprocess
import tarfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.support.children import Child
from tests.system.chaos.torchserve import MODEL
from tests.system.kit.verdict import RefutedError, require
from tests.system.orchestrators import pipelines
from tests.system.orchestrators.ground import ARCHIVE, IMAGE, Ground, Went, need_engine, way
from tests.system.orchestrators.vertex import SERVING
from tools.local.services import base_environment
from tools.loopback import free_ports
from tools.paths import ROOT, program

RUN, EMPTY = "sagemaker", "empty"
PATIENCE = 60.0
# Names of the transform's files, and the table: moto gives what a signed request wrote to no other.
READ = f"""
import boto3, sys
store = boto3.client("s3")
store.download_file("data", "runs/{RUN}/output/predictions.csv", sys.argv[1])
folder = "transform/{RUN}/"
for page in store.get_paginator("list_objects_v2").paginate(Bucket="data", Prefix=folder):
    for one in page["Contents"]:
        print(one["Key"].removeprefix(folder))
if store.list_objects_v2(Bucket="data", Prefix="transform/{EMPTY}/")["KeyCount"]:
    sys.exit("an empty input was transformed")
"""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@way
def sagemaker(ground: Ground) -> Went:
    """SageMaker: Processing, Batch Transform, Processing, in the SDK's local mode."""
    need_engine()
    need_engine(SERVING)
    checks = pipelines.checked(ground, "sagemaker")
    folder = ground.folder_of("sagemaker")
    store = Store(ground)
    _fill(ground, store, folder)
    definition = folder / "pipeline.json"
    told = [f"--environment={name}={value}" for name, value in (store.variables | CREDENTIALS).items()]
    images = (f"--image={IMAGE}", f"--serving-image={SERVING}")
    module = "imagebatch_pipelines.sagemaker"
    pipelines.done(
        ground, "sagemaker-definition", "-m", module, "definition", f"--out={definition}", *images, *told
    )
    values: dict[str, object] = {
        "input": "s3://data/images/",
        "runs_uri": "s3://data/runs",
        "transform_uri": "s3://data/transform",
        "model_data": "s3://data/model/model.tar.gz",
        "model_card": "s3://data/card/",
        "model_version": "1.0",
        "shard_size": ground.shard_size,
        "role": "arn:aws:iam::111122223333:role/local-mode-does-not-look",
    }
    _run(ground, store, definition, RUN, values)
    _run(ground, store, definition, EMPTY, values | {"input": "s3://data/nothing-is-here/"})
    csv = folder / "predictions.csv"
    read = pipelines.done(ground, "sagemaker-read", "-c", READ, csv, **store.variables, **CREDENTIALS)
    answers = {name.removesuffix(".out") for name in read.splitlines()}
    require(answers == set(ground.ids), f"{len(answers)} images have an answer of the transform")
    seen = f"{len(answers)} images by batch transform, judged one by one, an empty input left out"
    return Went(csv.read_bytes(), f"{seen}; {checks}")


def _run(ground: Ground, store: "Store", definition: Path, run_id: str, values: dict[str, object]) -> None:
    """Execute the definition once, with what it leaves of jobs beside it."""
    (port,) = free_ports(1)
    pipelines.done(
        ground,
        f"sagemaker-{run_id}",
        *("-m", "imagebatch_pipelines.sagemaker_local", f"--definition={definition}", f"--run-id={run_id}"),
        *(f"--folder={definition.parent / 'jobs'}", f"--port={port}"),
        *(part for name, value in values.items() for part in ("--set", f"{name}={value}")),
        seconds=1200,
        **store.variables,
        **CREDENTIALS,
    )


class Store:
    """moto's server, where this machine's containers reach it and other machines do not.

    Args:
        ground: For its log.

    Attributes:
        variables: By which clients find it.
    """

    def __init__(self, ground: Ground) -> None:
        gateway = _gateway()
        (port,) = free_ports(1)
        self._url = f"http://{gateway}:{port}"
        self.variables = {"AWS_ENDPOINT_URL": self._url}
        pipelines.python()
        self._server = Child(
            [str(program(pipelines.PART, "moto_server")), "-H", gateway, "-p", str(port)],
            environment=base_environment() | CREDENTIALS,
            log=ground.logs / "moto.log",
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._server.running:
            with suppress(OSError):
                self._send("", b"")
                return
            time.sleep(0.2)
        raise RefutedError(f"moto does not answer: {self._server.err[-300:]}")

    def put(self, key: str, data: bytes) -> None:
        """Keep an object."""
        self._send(f"/{key}", data)

    def _send(self, path: str, data: bytes) -> None:
        # Without a type of its own urllib calls the body a form, and moto reads it as one.
        kind = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self._url}/data{path}", data, kind, method="PUT")
        with urllib.request.urlopen(request, timeout=60):
            return


def _fill(ground: Ground, store: Store, folder: Path) -> None:
    for name in ground.ids:
        store.put(f"images/{name}", (ground.photographs / name).read_bytes())
    model = folder / "model.tar.gz"
    with tarfile.open(model, "w:gz") as packed:
        packed.add(ARCHIVE, ARCHIVE.name)
    store.put("model/model.tar.gz", model.read_bytes())
    store.put(f"card/{MODEL}.json", (ROOT / "model_store" / f"{MODEL}.json").read_bytes())


def _gateway() -> str:
    """Find the address that this machine has on the engine's bridge."""
    asks = ["docker", "network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]
    found = subprocess.run(asks, capture_output=True, text=True, check=False).stdout.strip()
    require(found != "", "the engine has no network `bridge` with a gateway")
    return found
