"""One measurement: start a contestant, ask it about every photograph, end it, check what it answered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from contestants import PEERS, Contestant
from environment import ROOT, VAR, program
from forms import FORMS
from services import base_environment
from stopwatch import MARK, marked
from torchserve import TorchServe, free_ports, make_stock_archive

ARCHIVE = ROOT / "model_store" / "solar-cells.mar"
WEIGHTS = VAR / "training" / "solar-cells.safetensors"
PATIENCE = 180.0
Answers = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """What one contestant did with the photographs once.

    Attributes:
        startup: Seconds until the first answer; of a script, until its clock started.
        seconds: From the first file to the last answer or part.
        images: Scored in that time.
        cpu: CPU-seconds of client, server and workers in that time.
        answers: Labels and probabilities by file name.
    """

    startup: float
    seconds: float
    images: int
    cpu: float
    answers: Answers


class Ground:
    """What contestants need, made once: the archive unpacked, the stock archive, a folder for what they write.

    Args:
        folder: Temporary.
    """

    def __init__(self, folder: Path) -> None:
        if not ARCHIVE.exists() or not WEIGHTS.exists():
            raise SystemExit("no archive or weights: run `make demo` once")
        self.folder = folder
        self.model = folder / "model"
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(self.model)
        self.store = folder / "model_store"
        self.store.mkdir()
        shutil.copy(ARCHIVE, self.store)
        self._stock: Path | None = None

    def variables(self, contestant: Contestant, mark: str) -> dict[str, str]:
        """All variables of its processes."""
        found = base_environment() | {
            MARK: mark,
            "PEER_KIND": contestant.kind,
            "PEER_MODEL": str(self.model),
            "PEER_WEIGHTS": str(WEIGHTS),
            "PYTHONPATH": str(PEERS),
            "PATH": f"{contestant.programs}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(self.folder / "bentoml"),
        }
        for name in [name for name in found if name.startswith("IMAGEBATCH_")]:
            del found[name]
        return found | ({"OMP_NUM_THREADS": str(contestant.threads)} if contestant.threads else {})

    def stock(self, contestant: Contestant, variables: dict[str, str]) -> Path:
        """The model store of stock TorchServe."""
        if self._stock is None:
            self._stock = make_stock_archive(self.folder / "stock", contestant.programs, variables)
        return self._stock


def measure(contestant: Contestant, ground: Ground, images: Sequence[Path]) -> Measurement:
    """Measure one contestant once.

    Args:
        contestant: Who.
        ground: Where.
        images: Photographs, of one folder.

    Raises:
        SystemExit: It did not start, failed, or lost an image.
    """
    mark = f"{contestant.name}-{os.getpid()}-{time.monotonic_ns()}"
    folder = Path(tempfile.mkdtemp(prefix=f"{contestant.name}-", dir=ground.folder))
    variables = ground.variables(contestant, mark)
    try:
        if contestant.name == "ours":
            found = _ours(contestant, ground, folder, variables, images)
        elif contestant.form:
            found = _server(contestant, ground, folder, variables, images)
        else:
            found = _script(contestant, folder, variables, images)
    finally:
        end(mark)
    if len(found.answers) != len(images):
        raise SystemExit(f"{contestant.name} answered for {len(found.answers)} of {len(images)} images")
    return found


def end(mark: str) -> None:
    """Ends everything that was started with a mark."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + patience
        left = list(marked(mark))
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = list(marked(mark))


def _server(
    contestant: Contestant, ground: Ground, folder: Path, variables: dict[str, str], images: Sequence[Path]
) -> Measurement:
    if contestant.environment == "torch":
        settings: dict[str, object] = {"disable_token_authorization": "true", "load_models": "stock.mar"}
        if contestant.threads:
            settings["default_workers_per_model"] = contestant.workers
        if contestant.batch > 1:
            model = {"minWorkers": contestant.workers, "maxWorkers": contestant.workers, "defaultVersion": True}
            model |= {"marName": "stock.mar", "batchSize": contestant.batch, "maxBatchDelay": 20}
            settings["models"] = json.dumps({"stock": {"1.0": model}})
        server = TorchServe(folder, ground.stock(contestant, variables), contestant.programs, False, settings)  # noqa: FBT003 - shipped: no
        argv, url, variables = server.argv, f"{server.inference}/predictions/stock", variables | server.variables
    else:
        (port,) = free_ports(1)
        argv = [part.format(port=port) for part in contestant.program]
        argv[0] = str(contestant.programs / argv[0])
        url = f"http://127.0.0.1:{port}{contestant.path}"
        variables = variables | {"PEER_PORT": str(port)} | _mlserver(folder)
    with _started(argv, variables, contestant.folder, folder) as begun:
        startup = _wait(url, contestant, images, begun, folder)
        asked = {"url": url, "form": contestant.form, "in_flight": contestant.in_flight}
        asked["warm"] = 8 if contestant.form == "loop" else 160
        return _measured([program("benchmarks", "python"), "client.py"], variables, folder, images, asked, startup)


def _mlserver(folder: Path) -> dict[str, str]:
    names = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")
    ports = {f"MLSERVER_{name}": str(port) for name, port in zip(names, free_ports(3), strict=True)}
    return ports | {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_PARALLEL_WORKERS": "2",
        "MLSERVER_METRICS_DIR": str(folder),
        "MLSERVER_LOAD_MODELS_AT_STARTUP": "true",
    }


def _script(
    contestant: Contestant, folder: Path, variables: dict[str, str], images: Sequence[Path]
) -> Measurement:
    argv = [contestant.programs / "python", contestant.folder / contestant.program[0]]
    return _measured(argv, variables, folder, images, {"warm": 32}, None)


def _ours(
    contestant: Contestant, ground: Ground, folder: Path, variables: dict[str, str], images: Sequence[Path]
) -> Measurement:
    serving = ROOT / "handlers" / ".venv" / "bin"
    server = TorchServe(folder / "server", ground.store, serving, True, {"load_models": "solar-cells.mar"})  # noqa: FBT003 - shipped: yes
    api = {
        "IMAGEBATCH_API_URL": server.inference,
        "IMAGEBATCH_MANAGEMENT_URL": server.management,
        "IMAGEBATCH_KEY_FILE": str(server.folder / "key_file.json"),
        "IMAGEBATCH_RUNS_URI": str(folder / "runs"),
        "IMAGEBATCH_LOG_LEVEL": "error",
    }
    with _started(server.argv, variables | server.variables, server.folder, folder) as begun:
        startup = _wait_for_workers(server, begun, folder)
        command = contestant.programs / "imagebatch"
        flags = ["--input", images[0].parent, "--limit", len(images), "--model", "solar-cells"]
        for run, more in (("run", []), ("warm", ["--limit", 160])):
            argv = [command, "preprocess", "--run-id", run, *flags, *more]
            subprocess.run([str(part) for part in argv], env=variables | api, check=True, stdout=subprocess.DEVNULL)
        asked = {"flags": ["--run-id", "run"], "warm": ["--run-id", "warm"], "run": str(folder / "runs" / "run")}
        argv = [contestant.programs / "python", "scorer.py"]
        return _measured(argv, variables | api, folder, images, asked, startup)


def _measured(
    argv: Sequence[Path | str],
    variables: Mapping[str, str],
    folder: Path,
    images: Sequence[Path],
    asked: dict[str, Any],
    startup: float | None,
) -> Measurement:
    answers = folder / "answers.json"
    content = json.dumps({"images": [str(image) for image in images], "answers": str(answers), **asked})
    begun = time.monotonic()
    with (folder / "client.log").open("wb") as log:
        done = subprocess.run(
            [str(part) for part in argv],
            cwd=ROOT / "benchmarks",
            env=variables,
            input=content.encode(),
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
            start_new_session=True,
        )
    whole = time.monotonic() - begun
    if done.returncode:
        raise SystemExit(f"{argv[-1]} ended with {done.returncode}:\n{_tail(folder / 'client.log')}")
    found = json.loads(done.stdout.splitlines()[-1])
    startup = whole - found["seconds"] if startup is None else startup
    return Measurement(
        startup, found["seconds"], found["images"], found["cpu"], json.loads(answers.read_text("utf-8"))
    )


@contextmanager
def _started(
    argv: Sequence[str], variables: Mapping[str, str], where: Path, folder: Path
) -> Iterator[float]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=where, env=dict(variables), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    begun = time.monotonic()
    try:
        yield begun
    finally:
        end(variables[MARK])
        process.wait()


def _wait(url: str, contestant: Contestant, images: Sequence[Path], begun: float, folder: Path) -> float:
    """Seconds until a server's first answer."""
    headers, body = FORMS[contestant.form].write([images[0].read_bytes()])
    while time.monotonic() - begun < PATIENCE:
        with suppress(OSError, URLError, HTTPException):
            urlopen(Request(url, body, headers), timeout=60).read()  # noqa: S310 - loopback
            return time.monotonic() - begun
        time.sleep(0.1)
    raise SystemExit(f"{contestant.name} did not answer in {PATIENCE:.0f} s:\n{_tail(folder / 'server.log')}")


def _wait_for_workers(server: TorchServe, begun: float, folder: Path) -> float:
    """Seconds until both workers of ours are ready."""
    while time.monotonic() - begun < PATIENCE:
        with suppress(OSError, ValueError, KeyError):
            key = json.loads((server.folder / "key_file.json").read_text("utf-8"))["management"]["key"]
            headers = {"Authorization": f"Bearer {key}"}
            request = Request(f"{server.management}/models/solar-cells", headers=headers)  # noqa: S310 - loopback
            (model,) = json.load(urlopen(request, timeout=20))  # noqa: S310 - the same
            if [worker["status"] for worker in model["workers"]] == ["READY", "READY"]:
                return time.monotonic() - begun
        time.sleep(0.1)
    raise SystemExit(f"TorchServe did not start in {PATIENCE:.0f} s:\n{_tail(folder / 'server.log')}")


def _tail(path: Path) -> str:
    return "\n".join(path.read_text("utf-8", errors="replace").splitlines()[-12:])


if __name__ == "__main__":
    sys.exit("run benchmarks/peers.py")
