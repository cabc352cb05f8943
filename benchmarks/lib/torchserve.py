"""A TorchServe for a measurement, ours as shipped or stock, on ports and in a folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tools.local import java
from tools.paths import ROOT, fail


@dataclass(frozen=True)
class TorchServe:
    """Command and variables of one server; making it writes its configuration.

    Attributes:
        folder: Its own: configuration, keys, logs, temporary files.
        store: Model store.
        programs: The `bin` of the environment that serves.
        shipped: With handlers/config.properties; else with TorchServe's own defaults.
        settings: More lines of its configuration.
    """

    folder: Path
    store: Path
    programs: Path
    shipped: bool
    settings: dict[str, object] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(6))

    def __post_init__(self) -> None:
        temporary = self.folder / "tmp"
        temporary.mkdir(parents=True)
        text = (ROOT / "handlers" / "config.properties").read_text("utf-8")
        lines = text.splitlines() if self.shipped else []
        shipped = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        names = ("inference_address", "management_address", "metrics_address")
        own: dict[str, object] = {
            name: f"http://127.0.0.1:{port}" for name, port in zip(names, self.ports, strict=False)
        }
        names = ("grpc_inference_port", "grpc_management_port", "initial_worker_port")
        own |= zip(names, self.ports[3:], strict=True)
        own |= {"grpc_inference_address": "127.0.0.1", "grpc_management_address": "127.0.0.1"}
        vmargs = f"{shipped.get('vmargs', '-Xmx1g')} -Djava.io.tmpdir={temporary}"
        own |= {"model_store": self.store, "vmargs": vmargs}
        if self.shipped:
            own |= {"allowed_urls": f"file://{self.store}/.*", "default_workers_per_model": 2}
        text = "".join(f"{name}={value}\n" for name, value in (shipped | own | self.settings).items())
        (self.folder / "config.properties").write_text(text, encoding="utf-8")

    @property
    def inference(self) -> str:
        """URL of the inference API."""
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def management(self) -> str:
        """URL of the management API."""
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def argv(self) -> list[str]:
        """The command that starts it."""
        flags = ["--start", "--foreground", "--ncs", "--ts-config", str(self.folder / "config.properties")]
        return [str(self.programs / "torchserve"), *flags]

    @property
    def variables(self) -> dict[str, str]:
        """Its variables."""
        found = java.find()
        if found is None:
            fail("no Java for TorchServe: run `make setup`")
        temporary, logs = str(self.folder / "tmp"), str(self.folder / "logs")
        return {
            "PATH": f"{self.programs}:{found.parent}:{os.environ['PATH']}",
            "JAVA_HOME": str(found.resolve().parent.parent),
            "TMPDIR": temporary,
            "TEMP": temporary,
            "LOG_LOCATION": logs,
            "METRICS_LOCATION": logs,
        }


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


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
