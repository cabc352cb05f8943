"""What all contestants need: the archive unpacked, the stock archive, variables, a folder to write to."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from benchmarks.lib.contestants import PEERS, Contestant
from benchmarks.lib.model import WEIGHTS, require_model
from benchmarks.lib.torchserve import make_stock_archive
from benchmarks.peers.stopwatch import MARK
from tools.local.services import base_environment


class Ground:
    """Made once for all rounds.

    Args:
        folder: Temporary.
        archive: What is measured; None: the benchmarks' own model, which is made where it is missing.
    """

    def __init__(self, folder: Path, archive: Path | None = None) -> None:
        packed = archive or require_model()
        self.folder = folder
        self.model = folder / "model"
        with zipfile.ZipFile(packed) as opened:
            opened.extractall(self.model)
        self.store = folder / "model_store"
        self.store.mkdir()
        shutil.copy(packed, self.store)
        self._stock: Path | None = None

    def variables(self, contestant: Contestant, mark: str) -> dict[str, str]:
        """All variables of its processes."""
        # Whoever has our engine imports the modules of our archive; `imagebatch score` has them served.
        own = [self.model] if contestant.kind == "ours" and contestant.name != "ours" else []
        found = base_environment() | {
            MARK: mark,
            "PEER_KIND": contestant.kind,
            "PEER_MODEL": str(self.model),
            "PEER_WEIGHTS": str(WEIGHTS),
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
