"""Stock TorchServe, and its archive of our model."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.paths import ROOT
from tools.torchserve import TorchServe


class StockTorchServe(TorchServe):
    """A server with TorchServe's own defaults in the place of handlers/config.properties."""

    def configuration(self) -> dict[str, object]:
        """Give what no two servers of a machine share, on loopback, and the settings."""
        grpc = dict.fromkeys(("grpc_inference_address", "grpc_management_address"), "127.0.0.1")
        return {**grpc, **self.site("-Xmx1g"), **self.settings}


def make_stock_archive(folder: Path, programs: Path, variables: dict[str, str]) -> Path:
    """Archive the model as TorchServe's documentation shows; give the model store with `stock.mar` in it."""
    peer = ROOT / "benchmarks" / "peers" / "torch"
    folder.mkdir(parents=True)
    network = folder / "network.pt"
    commands = [
        [programs / "python", peer / "export.py", network],
        [
            *(programs / "torch-model-archiver", "--model-name", "stock", "--version", "1.0", "--force"),
            *("--serialized-file", network, "--handler", peer / "stock_handler.py", "--export-path", folder),
            *("--extra-files", Path(variables["PEER_MODEL"], "index_to_name.json")),
        ],
    ]
    for command in commands:
        argv = [str(part) for part in command]
        subprocess.run(argv, env=variables, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - our own
    return folder
