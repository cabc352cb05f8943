"""Servers of other makers, each in its own locked environment, with the model of one archive behind it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.support.children import Child, last_line
from tests.system.chaos.torchserve import TorchServe as Serving
from tests.system.kit.verdict import RefutedError
from tools.local.services import base_environment
from tools.loopback import ask, free_ports
from tools.paths import ROOT, UV, Argv, run

MODEL = "solar-cells"
SERVING = Path(__file__).with_name("serving")
PATIENCE = 150.0


@dataclass
class Server:
    """A server that can be started, killed and started again on the same port.

    Attributes:
        folder: Its own: configuration and logs.
        model: The unpacked archive.
        labels: The model's, by class index.
    """

    folder: Path
    model: Path
    labels: list[str]
    environment: ClassVar[str] = ""
    ready: ClassVar[str] = f"/v2/models/{MODEL}/ready"
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    _child: Child | None = None
    _starts: int = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def grpc_url(self) -> str:
        """Where it answers over gRPC, if it does."""
        return f"grpc://127.0.0.1:{self.ports[1]}"

    def prepare(self) -> None:
        """Write what it is started from."""

    def argv(self) -> list[str]:
        """Give its command, as the programs of its environment are called."""
        raise NotImplementedError

    def variables(self) -> Mapping[str, str]:
        """Give variables of its own."""
        return {}

    @property
    def programs(self) -> Path:
        """The `bin` of its environment."""
        return ROOT / self.environment / ".venv" / "bin"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._starts += 1
        if self._starts == 1:
            sync: Argv = [UV, "sync", "--project", ROOT / self.environment, "--frozen", "--quiet"]
            run(list(sync), quiet=True)
            self.folder.mkdir(parents=True)
            self.prepare()
        self._child = Child(
            self.argv(),
            environment={
                **base_environment(),
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "PYTHONPATH": str(SERVING),
                "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": "1",
                "CONFORMANCE_MODEL": str(self.model),
                "CONFORMANCE_PORT": str(self.ports[0]),
                "CONFORMANCE_GRPC_PORT": str(self.ports[1]),
                **self.variables(),
            },
            log=self.folder / f"server-{self._starts}.log",
            folder=self.folder,
        )
        self._wait()

    def kill(self) -> None:
        """Kill it with all its processes."""
        if self._child:
            self._child.kill()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._child and self._child.running:
            with contextlib.suppress(OSError):
                ask(self.url + self.ready, seconds=5)
                return
            time.sleep(0.2)
        said = last_line(self._child.err) if self._child else ""
        raise RefutedError(f"{type(self).__name__} did not start: {said}; its log is in {self.folder}")


class TorchServe(Server):
    """TorchServe 0.12, as it is shipped, but for the keys: two servers of one model have none in common."""

    _serving: Serving | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        if self._serving is None:
            raise RefutedError("TorchServe was not started")
        return self._serving.inference

    def start(self) -> None:
        """Start it and wait until its workers are ready."""
        if self._serving is None:
            store = self.folder / "store"
            store.mkdir(parents=True)
            shutil.make_archive(str(store / MODEL), "zip", self.model)
            (store / f"{MODEL}.zip").rename(store / f"{MODEL}.mar")
            open_to_all = {"disable_token_authorization": "true"}
            self._serving = Serving(self.folder / "server", store, **open_to_all)
        else:
            self._serving.start()
        self._wait_for_workers(self._serving.management)

    @staticmethod
    def _wait_for_workers(management: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                (model,) = json.loads(ask(f"{management}/models/{MODEL}", seconds=5))
                if all(worker["status"] == "READY" for worker in model["workers"]):
                    return
            time.sleep(0.2)
        raise RefutedError("TorchServe did not start")

    def kill(self) -> None:
        """Kill it with its workers."""
        if self._serving:
            self._serving.kill()


class LitServe(Server):
    """LitServe 0.2.19, through a template."""

    environment = "benchmarks/peers/litserve"
    ready = "/health"

    def argv(self) -> list[str]:
        return [str(self.programs / "python"), str(SERVING / "litserve_server.py")]


class KServe(Server):
    """KServe's Python server, 0.21, with the predictor of deploy/kserve/."""

    environment = "deploy/kserve/predictor"

    def prepare(self) -> None:
        shutil.make_archive(str(self.folder / MODEL), "zip", self.model)
        (self.folder / f"{MODEL}.zip").rename(self.folder / f"{MODEL}.mar")

    def argv(self) -> list[str]:
        ports = [f"--http_port={self.ports[0]}", f"--grpc_port={self.ports[1]}"]
        archive = self.folder / f"{MODEL}.mar"
        model = [f"--model_name={MODEL}", f"--model_dir={archive}", "--scoring_threads=1"]
        return [str(self.programs / "imagebatch-kserve"), *model, *ports]


class KServePixels(Server):
    """The same server with a model that takes pixels."""

    environment = "deploy/kserve/predictor"

    def argv(self) -> list[str]:
        return [str(self.programs / "python"), str(SERVING / "kserve_server.py")]


class MLServer(Server):
    """MLServer 1.7."""

    environment = "benchmarks/peers/mlserver"
    takes: ClassVar[dict[str, Any]] = {"datatype": "BYTES", "shape": [-1]}

    def prepare(self) -> None:
        output = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [-1, len(self.labels)],
            "parameters": {"labels": self.labels},
        }
        model = {
            "name": MODEL,
            "implementation": "mlserver_model.Images",
            "inputs": [{"name": "image"} | self.takes],
            "outputs": [output],
        }
        http, grpc, metrics = self.ports
        ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
        settings = {"host": "127.0.0.1", "parallel_workers": 0, **ports}
        (self.folder / "model-settings.json").write_text(json.dumps(model))
        (self.folder / "settings.json").write_text(json.dumps(settings))

    def argv(self) -> list[str]:
        return [str(self.programs / "mlserver"), "start", "."]


class MLServerPixels(MLServer):
    """The same with a model that takes pixels."""

    takes: ClassVar[dict[str, Any]] = {"datatype": "UINT8", "shape": [-1, 3, 224, 224]}


class MLflow(Server):
    """`mlflow models serve` 3.17."""

    environment = "training"
    ready = "/ping"

    def prepare(self) -> None:
        save = (
            "import mlflow, sys;"
            "mlflow.pyfunc.save_model(sys.argv[1], python_model=sys.argv[2], pip_requirements=['mlflow'])"
        )
        saved = [str(self.folder / "model"), str(SERVING / "mlflow_model.py")]
        tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/tracking.db"}
        model = {"CONFORMANCE_MODEL": str(self.model)}
        run([str(self.programs / "python"), "-c", save, *saved], quiet=True, environment=tracking | model)

    def argv(self) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(self.ports[0]), "--workers", "1"]
        return [
            str(self.programs / "mlflow"),
            "models",
            "serve",
            "-m",
            "model",
            "--env-manager",
            "local",
            *where,
        ]


class Triton(Server):
    """Triton 2.51, out of the wheel of pytriton, with two instances of a Python model."""

    environment = "benchmarks/peers/triton"
    takes: ClassVar[str] = "data_type: TYPE_STRING dims: [1]"
    tells: ClassVar[str] = 'output [{ name: "error" data_type: TYPE_STRING dims: [1] }]'

    @property
    def _packages(self) -> Path:
        return self.programs.parent / "lib" / "python3.11" / "site-packages"

    def prepare(self) -> None:
        wheel = self._packages / "pytriton" / "tritonserver"
        backend = self.folder / "backends" / "python"
        backend.mkdir(parents=True)
        stub = wheel / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
        for file in (stub, *(wheel / "backends" / "python").iterdir()):
            (backend / file.name).symlink_to(file)
        version = self.folder / "models" / MODEL / "1"
        version.mkdir(parents=True)
        (version / "model.py").symlink_to(SERVING / "triton_model.py")
        (version / "answering.py").symlink_to(SERVING / "answering.py")  # the backend looks beside the model
        (version.parent / "config.pbtxt").write_text(
            f"""backend: "python"
max_batch_size: 128
input [{{ name: "image" {self.takes} }}]
output [{{ name: "probabilities" data_type: TYPE_FP32 dims: [{len(self.labels)}] }}]
{self.tells}
instance_group [{{ kind: KIND_CPU count: 2 }}]
parameters: {{ key: "labels" value: {{ string_value: "{",".join(self.labels)}" }} }}
"""
        )

    def argv(self) -> list[str]:
        server = self._packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"
        addresses = ["--http-address=127.0.0.1", f"--http-port={self.ports[0]}"]
        addresses += ["--grpc-address=127.0.0.1", f"--grpc-port={self.ports[1]}"]
        backends = f"--backend-directory={self.folder}/backends"
        return [str(server), "--model-repository=models", backends, *addresses, "--allow-metrics=false"]

    def variables(self) -> Mapping[str, str]:
        library = sysconfig.get_config_var("LIBDIR")  # of the interpreter whose stub it is
        return {
            "LD_LIBRARY_PATH": f"{self._packages}/nvidia_pytriton.libs:{library}",
            "PYTHONPATH": f"{SERVING}:{self._packages}",
        }


class TritonPixels(Triton):
    """The same with a model that takes pixels."""

    takes = "data_type: TYPE_UINT8 dims: [3, 224, 224]"
    tells = ""
