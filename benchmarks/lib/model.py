"""The model of every benchmark: MobileNetV2 to its last layer at 224 pixels, which every server knows.

The demo's own network ends in its middle, where no other maker's server has it. This one is made from the
same ImageNet weights and the same photographs, once, into a folder of its own.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from tools.paths import VAR, Argv, program, run, step

NAME = "solar-cells"
_DATA = VAR / "data"
_CELLS = _DATA / "solar-cells"


@dataclass(frozen=True)
class BenchmarkModel:
    """A model that benchmarks measure.

    Attributes:
        folder: Where it is made.
        every: It is trained on every so manieth photograph.
    """

    folder: Path
    every: int = 1

    @property
    def archive(self) -> Path:
        """What TorchServe loads."""
        return self.folder / "model_store" / f"{NAME}.mar"

    @property
    def weights(self) -> Path:
        """What eager torch loads."""
        return self.folder / "training" / f"{NAME}.safetensors"

    def words(self) -> list[str]:
        """Say to `imagebatch-train` which model is meant, and where it lies."""
        laid_out = {
            "weights": VAR / "weights",
            "data": _DATA if self.every == 1 else self.folder / "data",
            "training": self.folder / "training",
            "model_store": self.folder / "model_store",
        }
        folders = [f"paths.{name}='{folder}'" for name, folder in laid_out.items()]
        runs = [
            f"tracking.uri='sqlite:///{self.folder / 'mlflow.db'}'",
            f"tracking.artifacts='{self.folder / 'mlflow'}'",
        ]
        # Published are its speed and how far its answers move: a short fine-tune will do for both.
        short = ["finetune.learning_rates=[5e-5]", "finetune.epochs=1", "tracking.details=false"]
        return ["preset=general", *short, *folders, *runs, *(self._few() if self.every > 1 else [])]

    @functools.cache  # noqa: B019 - two models in all, and each is looked at once a process
    def require(self) -> Path:
        """Train and archive the model where it is missing or not current; return the archive.

        Raises:
            SystemExit: It cannot be made; `imagebatch-train` has said why.
        """
        if self.every > 1:
            _train("data", f"paths.data='{_DATA}'")
            self._write_few()
        for verb in ("weights", "data", "train", "archive"):
            _train(verb, *self.words())
        return self.archive

    def _few(self) -> list[str]:
        return [
            "data=csv",
            f"data.name={NAME}",
            f"data.images='{_CELLS / 'images'}'",
            f"data.csv='{self._list}'",
            "data.image_column=image_id",
            "data.group_column=block",
            "data.classes=[mono-sound,mono-defective,poly-sound,poly-defective]",
        ]

    @property
    def _list(self) -> Path:
        return self.folder / "photographs.csv"

    def _write_few(self) -> None:
        with (_CELLS / "labels.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._list.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([rows[0], *rows[1 :: self.every]])


MODEL = BenchmarkModel(VAR / "benchmarks" / "model")
QUICK_MODEL = BenchmarkModel(VAR / "benchmarks" / "quick-model", every=4)
"""That of `make bench-quick`, whose figures are ratios of speed: made in a quarter of the time."""


def _train(verb: str, *words: str) -> None:
    argv: Argv = [program("training", "imagebatch-train"), verb, *words]
    with step(f"the benchmarks' model: {verb}"):
        run(argv, environment={"MLFLOW_TRACKING_URI": ""})
