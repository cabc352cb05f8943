"""A TorchServe outside a container: its configuration, its command and its variables, in a folder of its own.

Its configuration is handlers/config.properties with what that file leaves to the site.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers import imagebatch_serve
from tools import properties
from tools.local import java
from tools.loopback import ask, free_ports
from tools.paths import ROOT, fail, program, say

SHIPPED = ROOT / "handlers" / "config.properties"
SERVING = program("handlers", "")
APIS = ("inference", "management", "metrics")
NAMES = (*APIS, "grpc_inference", "grpc_management", "workers")


def own_ports() -> dict[str, int]:
    """Find a free port for everything that a server listens on."""
    return dict(zip(NAMES, free_ports(len(NAMES)), strict=True))


@dataclass(frozen=True)
class TorchServe:
    """One server; `configure` writes its files.

    Attributes:
        folder: its own: configuration, keys, logs, temporary files.
        store: the model store.
        settings: lines of its configuration, beside those that follow from the other attributes.
        ports: by the names in `NAMES`.
        programs: the `bin` of the environment that serves.
    """

    folder: Path
    store: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=own_ports)
    programs: Path = SERVING

    @property
    def inference(self) -> str:
        """The address of the inference API."""
        return f"http://127.0.0.1:{self.ports['inference']}"

    @property
    def management(self) -> str:
        """The address of the management API."""
        return f"http://127.0.0.1:{self.ports['management']}"

    @property
    def key_file(self) -> Path:
        """Where it writes its keys."""
        return self.folder / "key_file.json"

    @property
    def config(self) -> Path:
        """The file with its configuration."""
        return self.folder / "config.properties"

    @property
    def temporary(self) -> Path:
        """Its folder for temporary files: it leaves its pid and its unpacked models there."""
        return self.folder / "tmp"

    def configure(self) -> None:
        """Make its folders and write its configuration."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.config.write_text(properties.text(self.configuration()), encoding="utf-8")

    def configuration(self) -> dict[str, object]:
        """Put this server's own lines into the shipped configuration.

        Raises:
            ValueError: of a line that the shipped file does not have: TorchServe ignores what it does not
                know in silence.
        """
        shipped = properties.read(SHIPPED)
        # Characters of the store's path stand in brackets: a properties file takes backslashes away.
        store = re.sub(r"([^\w/-])", r"[\1]", str(self.store))
        allowed = {"allowed_urls": shipped["allowed_urls"].replace(shipped["model_store"], store)}
        own = self.site(shipped["vmargs"]) | allowed | dict(self.settings)
        if own.get("load_models", shipped["load_models"]) == "all":
            own["load_models"] = ",".join(self._archives())
        unknown = own.keys() - shipped.keys()
        if unknown:
            raise ValueError(f"handlers/config.properties has no {', '.join(sorted(unknown))}")
        return shipped | own

    def _archives(self) -> list[str]:
        """Name what is served from the start, defaults first, and say why the rest is not."""
        found = imagebatch_serve.archives(self.store)
        for text in [*found.copies, *found.refused]:
            say(f"torchserve: {text}")
        return imagebatch_serve.load_order(self.store, found.served)

    def site(self, vmargs: str) -> dict[str, object]:
        """Give the lines that no two servers of a machine share.

        Args:
            vmargs: of its Java, to which the folder for temporary files is added.
        """
        return {
            **{f"{api}_address": f"http://127.0.0.1:{self.ports[api]}" for api in APIS},
            "grpc_inference_port": self.ports["grpc_inference"],
            "grpc_management_port": self.ports["grpc_management"],
            "initial_worker_port": self.ports["workers"],
            "model_store": self.store,
            "vmargs": f"{vmargs} -Djava.io.tmpdir={self.temporary}",
        }

    @property
    def argv(self) -> list[str]:
        """The command that starts it, in its folder."""
        flags = ["--start", "--foreground", "--ncs", "--ts-config", str(self.config)]
        return [str(self.programs / "torchserve"), *flags, "--model-store", str(self.store)]

    def variables(self, found: Path) -> dict[str, str]:
        """Give its variables beside the PATH, on which its programs and the Java's must come first.

        Args:
            found: the Java executable.
        """
        return {
            "JAVA_HOME": str(found.resolve().parent.parent),
            **dict.fromkeys(("TMPDIR", "TEMP"), str(self.temporary)),
            **dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION"), str(self.folder / "logs")),
        }

    def environment(self) -> dict[str, str]:
        """Give its variables with the PATH; ends this script where there is no Java."""
        found = java.find()
        if found is None:
            fail("no Java for TorchServe: run `make setup`")
        # Workers are started as `python`: it must be the serving environment's.
        return {**self.variables(found), "PATH": f"{self.programs}:{found.parent}:{os.environ['PATH']}"}

    def manage(self, path: str, method: str | None = None, seconds: float = 20.0) -> Any:
        """Ask the management API, with its key.

        Args:
            path: with its query.
            method: HTTP method; default GET.
            seconds: of silence after which it is given up.

        Raises:
            OSError: it does not answer yet, or refuses (HTTPError).
            ValueError: a file of keys that is being written, or an answer that is not JSON.
            KeyError: the same, for a file that is JSON already.
        """
        key = json.loads(self.key_file.read_text())["management"]["key"]
        headers = {"Authorization": f"Bearer {key}"}
        return json.loads(ask(self.management + path, headers, method=method, seconds=seconds))

    def workers(self, model: str) -> list[dict[str, Any]]:
        """List the workers of a model, or of one version `model/version`, each with its `pid` and `status`.

        Raises:
            OSError: as of `manage`, and so for its other errors.
        """
        (found,) = self.manage(f"/models/{model}")
        workers: list[dict[str, Any]] = found["workers"]
        return workers
