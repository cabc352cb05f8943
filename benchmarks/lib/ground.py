"""What all contestants need: the archive unpacked, the stock archive, variables, a folder to write to."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from benchmarks.lib.contestants import PEERS, Contestant
from benchmarks.lib.model import MODEL, BenchmarkModel
from benchmarks.lib.torchserve import make_stock_archive
from benchmarks.peers.stopwatch import MARK
from tools.local.services import base_environment

_PIXELS = re.compile(r"""^(  pixels: )["'](\d+)["']""", re.MULTILINE)  # the line of model-config.yaml


class Ground:
    """Made once for all rounds.

    Args:
        folder: Temporary.
        archive: What is measured; None: that of `model`, which is made where it is missing.
        model: Whose weights eager torch is given.
    """

    def __init__(self, folder: Path, archive: Path | None = None, *, model: BenchmarkModel = MODEL) -> None:
        packed = archive or model.require()
        self._weights = model.weights
        self.folder = folder
        self.model = folder / "model"
        with zipfile.ZipFile(packed) as opened:
            opened.extractall(self.model)
        self.store = folder / "model_store"
        self.store.mkdir()
        shutil.copy(packed, self.store)
        self._stock: Path | None = None
        self._declaring: dict[str, Path] = {}

    def store_of(self, contestant: Contestant) -> Path:
        """Return the model store with the archive that declares this contestant's pixels."""
        return self._of(contestant.pixels) / "store" if contestant.pixels else self.store

    def model_of(self, contestant: Contestant) -> Path:
        """Return that archive, unpacked."""
        return self._of(contestant.pixels) / "model" if contestant.pixels else self.model

    def _of(self, pixels: str) -> Path:
        if pixels not in self._declaring:
            made = Path(tempfile.mkdtemp(prefix=f"pixels-{pixels}-", dir=self.folder))
            shutil.copytree(self.model, made / "model")
            path = made / "model" / "model-config.yaml"
            path.write_text(_PIXELS.sub(rf'\g<1>"{pixels}"', path.read_text("utf-8")), "utf-8")
            (made / "store").mkdir()
            shutil.make_archive(str(made / "packed"), "zip", made / "model")
            (made / "packed.zip").rename(made / "store" / MODEL.archive.name)
            self._declaring[pixels] = made
        return self._declaring[pixels]

    def variables(self, contestant: Contestant, mark: str) -> dict[str, str]:
        """All variables of its processes."""
        # Whoever has our engine imports the modules of our archive; `imagebatch score` has them served.
        model = self.model_of(contestant)
        own = [model] if contestant.kind == "ours" and contestant.group == "engine" else []
        own += [model] if contestant.name == "ceiling" else []
        found = base_environment() | {
            MARK: mark,
            "PEER_KIND": contestant.kind,
            "PEER_MODEL": str(model),
            "PEER_WEIGHTS": str(self._weights),
            "PYTHONPATH": os.pathsep.join(map(str, [*own, PEERS])),
            "PATH": f"{contestant.programs}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(self.folder / "bentoml"),
        }
        for name in [name for name in found if name.startswith("IMAGEBATCH_")]:
            del found[name]
        return found | ({"OMP_NUM_THREADS": str(contestant.threads)} if contestant.threads else {})

    def stock(self, contestant: Contestant, variables: dict[str, str]) -> Path:
        """Return the model store of stock TorchServe."""
        if self._stock is None:
            self._stock = make_stock_archive(self.folder / "stock", contestant.programs, variables)
        return self._stock
