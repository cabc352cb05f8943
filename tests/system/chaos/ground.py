"""What all scenarios stand on: photographs, a TorchServe, and a run that nobody disturbed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.demo_material import copy_photographs
from tests.system.chaos import archives
from tests.system.chaos.runs import Folder, Result, Run, ids_of, only
from tests.system.chaos.torchserve import MODEL, TorchServe
from tests.system.kit.scenario import Scenario, described
from tools.local.services import base_environment
from tools.paths import ROOT, fail

ARCHIVE = ROOT / "model_store" / f"{MODEL}.mar"
POISONABLE = "2.0"
ALL: list[Scenario] = []


def scenario(act: Callable[["Ground"], Result]) -> Callable[["Ground"], Result]:
    """Put a function into the list of scenarios."""
    ALL.append(Scenario(act=act, **described(act)))
    return act


class Ground:
    """Files and servers that the scenarios share.

    Args:
        folder: An empty folder for everything.
        images: Photographs per run.
        storm_seconds: How long a storm of 503 lasts.

    Attributes:
        photographs: The folder with that many photographs.
        ids: Their names, sorted.
        server: The TorchServe that serves them.
        logs: The folder of the commands' output.
        calm_csv: predictions.csv of the undisturbed run.
        calm_seconds: Wall time of its `score`.
    """

    def __init__(self, folder: Path, *, images: int, storm_seconds: float) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.storm_seconds = storm_seconds
        self.photographs = folder / "photographs"
        self.ids = copy_photographs(images, self.photographs, ARCHIVE)
        self.store = folder / "store"
        self.store.mkdir()
        shutil.copy(ARCHIVE, self.store)
        archives.poisonable(ARCHIVE, self.store / "poisonable.mar", POISONABLE)
        archives.replacement(ARCHIVE, self.store / "replacement.mar")
        self.server = TorchServe(folder / "torchserve", self.store)
        self.server.wait_until_ready()
        self.calm_csv = b""
        self.calm_seconds = 0.0

    def measure_calm(self) -> None:
        """Runs undisturbed: once whole, as a user would, and once stage by stage, for the time."""
        whole = self.run("calm-whole")
        whole.end(whole.start("run", "--input", str(self.photographs)))
        self.calm_csv = whole.files.read("output/predictions.csv")
        if ids_of(self.calm_csv) != self.ids:
            fail(f"the undisturbed run lost images: see {self.folder}/runs/calm-whole/output/failures.csv", 1)
        staged = self.prepared("calm")
        staged.score()
        staged.settle("")
        self.calm_seconds = staged.score_seconds

    def run(
        self, run_id: str, *, api_url: str = "", server: TorchServe | None = None, runs: Path | None = None
    ) -> Run:
        """A run over all photographs that has not begun.

        Args:
            run_id: Its name.
            api_url: What the scorer takes for the inference API; default: the server itself.
            server: Another server than the common one.
            runs: Where runs are kept.
        """
        asked = server or self.server
        runs = runs or self.folder / "runs"
        return Run(
            run_id,
            environment={
                **{name: value for name, value in base_environment().items() if "IMAGEBATCH" not in name},
                "IMAGEBATCH_RUNS_URI": str(runs),
                # What goes wrong goes wrong between requests, and to images that the relay can see.
                "IMAGEBATCH_SHARED_MEMORY": "false",
                "IMAGEBATCH_PACK_SIZE": "32",
                "IMAGEBATCH_API_URL": api_url or asked.inference,
                "IMAGEBATCH_MANAGEMENT_URL": asked.management,
                "IMAGEBATCH_KEY_FILE": str(asked.key_file),
            },
            logs=self.logs,
            files=Folder(runs / run_id),
            listed=self.ids,
            expected=self.calm_csv,
            calm_seconds=self.calm_seconds,
        )

    def prepared(
        self, run_id: str, *, api_url: str = "", server: TorchServe | None = None, runs: Path | None = None
    ) -> Run:
        """A run that has been preprocessed, directly at the server."""
        run = self.run(run_id, api_url=api_url, server=server, runs=runs)
        direct = (server or self.server).inference
        run.preprocess("--input", str(self.photographs), "--api-url", direct)
        return run

    def expect_only(self, run: Run, ids: list[str]) -> None:
        """Makes a run answer for some of the photographs only."""
        run.listed = ids
        run.calm_seconds *= len(ids) / len(self.ids)
        run.expected = only(self.calm_csv, ids)

    def digest_of(self, version: str) -> str:
        """The digest that a version of the model says of itself."""
        (found,) = self.server.manage("GET", f"/models/{MODEL}/{version}", customized="true")
        described = found["customizedMetadata"]
        described = json.loads(described) if isinstance(described, str) else described
        return str(described["model"]["digest"])
