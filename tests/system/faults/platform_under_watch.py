"""The real programs on loopback: those that watch, collectd and a TorchServe."""

import shutil
from pathlib import Path
from typing import Any

from tests.system.chaos.torchserve import TorchServe
from tests.system.faults.watchers import WATCHING, Watchers
from tools.paths import ROOT, fail


class Platform(Watchers):
    """Everything that runs while faults are made.

    Args:
        folder: for configurations, logs, data and runs.
        images: photographs of solar cells.

    Attributes:
        server: The model server.
        photographs: A folder of sound images.
        airflow: Set by whoever starts one.
    """

    def __init__(self, folder: Path, images: Path) -> None:
        _require(images)
        self.airflow: Any = None
        self.server = TorchServe(folder / "torchserve", ROOT / "model_store", job_queue_size=6)
        super().__init__(folder, self.server.metrics_port)
        self.api = {
            "api_url": self.server.inference,
            "management_url": self.server.management,
            "key_file": self.server.key_file,
        }
        self.photographs = folder / "photographs"
        self.photographs.mkdir()
        for path in sorted(images.glob("*.png"))[:600]:
            shutil.copy(path, self.photographs)
        self.start()
        self.start_program("collectd", "-f", "-C", str(self.folder / "collectd.conf"))
        self.server.wait_until_ready()
        self.start_prometheus(targets=3)


def _require(images: Path) -> None:
    missing = [name for name in (*WATCHING, "collectd") if shutil.which(name) is None]
    if missing:
        fail(
            f"no {', '.join(missing)}: install Debian's packages of these names"
            " (for collectd: collectd-core, libprotobuf-c1, libmicrohttpd12)"
        )
    if not (ROOT / "model_store" / "solar-cells.mar").exists() or not images.exists():
        fail("no archive or no images: run `make demo` first")
