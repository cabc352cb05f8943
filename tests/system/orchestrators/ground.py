"""What all ways stand on: photographs, a TorchServe on loopback, and the CSV that every way must give."""

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.support.children import Child
from tests.support.demo_material import copy_photographs
from tests.system.chaos.torchserve import MODEL, TorchServe
from tests.system.kit.scenario import Scenario, described
from tests.system.kit.verdict import RefutedError
from tools.local.services import base_environment
from tools.paths import ROOT, program

ARCHIVE = ROOT / "model_store" / f"{MODEL}.mar"
TAG = os.environ.get("IMAGEBATCH_TAG", "latest")  # as `make images` takes it
IMAGE = f"imagebatch:{TAG}"
WAYS: list[Scenario] = []


@dataclass(frozen=True)
class Went:
    """What a way gave.

    Attributes:
        csv: predictions.csv, byte for byte as it was left.
        seen: What happened, in a few words, for the table.
        figures: Not used by this suite.
    """

    csv: bytes
    seen: str
    figures: str = ""


def way(act: Callable[["Ground"], Went]) -> Callable[["Ground"], Went]:
    """Put a function into the list of ways, under its own name, with its docstring's first paragraph."""
    WAYS.append(Scenario(act=act, **described(act)))
    return act


class Ground:
    """Files and servers that the ways share.

    Args:
        folder: An empty folder for everything.
        images: How many photographs every way scores.
        shard_size: Images per shard; a way that has shards takes this one.

    Attributes:
        photographs: The folder with that many photographs; `ids`: their names, sorted.
        store: A model store that holds the demo's archive alone.
        server: The TorchServe on loopback that serves it.
        reference: predictions.csv of `imagebatch run`.
        shared: Names of what one way has started for others as well.
        at_end: What is done when all ways have ended.
    """

    def __init__(self, folder: Path, *, images: int, shard_size: int) -> None:
        self.folder, self.shard_size = folder, shard_size
        self.logs = folder / "logs"
        self.photographs = folder / "photographs"
        self.ids = copy_photographs(images, self.photographs, ARCHIVE)
        self.store = folder / "store"
        self.store.mkdir()
        shutil.copy(ARCHIVE, self.store)
        self.server = TorchServe(folder / "torchserve", self.store)
        self.server.wait_until_ready()
        self.reference = b""
        self.shared: set[str] = set()
        self.at_end = ExitStack()

    def folder_of(self, name: str) -> Path:
        """Make an empty folder for one way."""
        made = self.folder / name
        made.mkdir()
        return made

    @property
    def settings(self) -> dict[str, str]:
        """What a stage on this machine must be told of the server; no runs, no input."""
        return {
            "IMAGEBATCH_API_URL": self.server.inference,
            "IMAGEBATCH_KEY_FILE": str(self.server.key_file),
            "IMAGEBATCH_ALLOWED_ROOTS": str(self.photographs),
        }

    def imagebatch(self, log: str, *arguments: str, **settings: str) -> Child:
        """Start the command `imagebatch` of this checkout as a process."""
        own = {name: value for name, value in base_environment().items() if "IMAGEBATCH" not in name}
        return Child(
            [str(program("pipeline_image", "imagebatch")), *arguments],
            environment=own | self.settings | settings,
            log=self.logs / f"{log}.log",
        )


def need_engine(image: str = IMAGE) -> None:
    """Refuse to go on without a container engine that has an image.

    Raises:
        RefutedError: With what to do.
    """
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        raise RefutedError("no container engine answers: start one, and `docker info` says so")
    if subprocess.run([docker, "image", "inspect", image], capture_output=True, check=False).returncode:
        raise RefutedError(f"the engine has no image {image}: run `make images`")
