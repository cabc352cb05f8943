"""One measurement: start a contestant, ask it about every photograph, end it, keep what it answered."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.lib.contestants import Contestant
from benchmarks.lib.forms import PACK
from benchmarks.lib.ground import Ground
from benchmarks.lib.servers import end, started, tail, wait
from benchmarks.lib.serving import command, served
from benchmarks.lib.torchserve import StockTorchServe
from tools.loopback import free_ports
from tools.paths import ROOT, program

Answers = dict[str, Any]
PATIENCE = 600  # seconds of one measurement
# Images before the clock starts: TorchServe's Java compiles what it runs often, which a long run forgets.
WARM = 1280


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


def measure(contestant: Contestant, ground: Ground, images: Sequence[Path], pack: int = PACK) -> Measurement:
    """Measure one contestant once.

    Args:
        contestant: Who.
        ground: Where.
        images: Photographs, of one folder.
        pack: Most photographs in one request of a peer that takes several.

    Raises:
        SystemExit: It did not start, failed, or lost an image.
    """
    mark = f"{contestant.name}-{os.getpid()}-{time.monotonic_ns()}"
    folder = Path(tempfile.mkdtemp(prefix=f"{contestant.name}-", dir=ground.folder))
    turn = _Turn(contestant, ground, folder, ground.variables(contestant, mark), images, pack)
    try:
        if contestant.environment == "pipeline_image":
            found = turn.ours()
        elif contestant.form:
            found = turn.server()
        else:
            found = turn.script()
    finally:
        end(mark)
    if len(found.answers) != len(images):
        raise SystemExit(f"{contestant.name} answered for {len(found.answers)} of {len(images)} images")
    return found


@contextmanager
def _patience(script: str) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{script} was not done after {PATIENCE} s") from None


@dataclass(frozen=True)
class _Turn:
    contestant: Contestant
    ground: Ground
    folder: Path
    variables: dict[str, str]
    images: Sequence[Path]
    pack: int

    def server(self) -> Measurement:
        """Measure a server, asked by `client.py`."""
        who = self.contestant
        argv, url, more = self._stock() if who.environment == "torch" else self._peer()
        variables = self.variables | more
        with started(argv, variables, who.folder, self.folder) as begun:
            startup = wait(url, who, self.images, begun, self.folder)
            asked = {"url": url, "form": who.form, "in_flight": who.in_flight, "pack": self.pack}
            asked["warm"] = {"loop": 8}.get(who.form, WARM if who.kind == "ours" else 64)
            client = [str(program("benchmarks", "python")), "-m", "benchmarks.lib.client"]
            found = self._measured(client, ROOT, variables, asked)
        return replace(found, startup=startup)

    def script(self) -> Measurement:
        """Measure a script; its start-up is what it took beside the time that it measured."""
        who = self.contestant
        argv = [str(who.programs / "python"), *who.program]
        return self._measured(argv, who.folder, self.variables, {"warm": 32})

    def ours(self) -> Measurement:
        """`imagebatch score` on a TorchServe as shipped; the run is prepared outside the measured time."""
        who, source = self.contestant, self.images[0].parent
        with served(self.ground.store_of(who), self.folder, self.variables) as api:
            for run, count in (("run", len(self.images)), ("warm", WARM)):
                command(api.variables, "preprocess", "--run-id", run, "--limit", count, "--input", source)
            flags = ["--run-id", "run", *who.flags]
            warm = ["--run-id", "warm", "--pack-size", "32"]  # as many requests as the others have
            asked = {"flags": flags, "warm": warm, "run": str(self.folder / "runs" / "run")}
            argv = [str(who.programs / "python"), *who.program]
            found = self._measured(argv, who.folder, api.variables, asked)
        return replace(found, startup=api.startup)

    def _stock(self) -> tuple[list[str], str, dict[str, str]]:
        who = self.contestant
        settings: dict[str, object] = {"disable_token_authorization": "true", "load_models": "stock.mar"}
        if who.threads:
            settings["default_workers_per_model"] = who.workers
        if who.batch > 1:
            model = {"minWorkers": who.workers, "maxWorkers": who.workers, "defaultVersion": True}
            model |= {"marName": "stock.mar", "batchSize": who.batch, "maxBatchDelay": 20}
            settings["models"] = json.dumps({"stock": {"1.0": model}})
        store = self.ground.stock(who, self.variables)
        server = StockTorchServe(self.folder, store, settings, programs=who.programs)
        server.configure()
        return server.argv, f"{server.inference}/predictions/stock", server.environment()

    def _peer(self) -> tuple[list[str], str, dict[str, str]]:
        who, ports = self.contestant, [str(port) for port in free_ports(3)]
        command, *arguments = (part.format(port=ports[0]) for part in who.program)
        names = ("MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_METRICS_PORT")
        more = {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "2"}
        more |= {"MLSERVER_METRICS_DIR": str(self.folder), "PEER_PORT": ports[0]}
        argv = [str(who.programs / command), *arguments]
        return argv, f"http://127.0.0.1:{ports[0]}{who.path}", more | dict(zip(names, ports, strict=True))

    def _measured(
        self, argv: Sequence[str], where: Path, variables: Mapping[str, str], asked: Mapping[str, Any]
    ) -> Measurement:
        script = argv[-1]
        answers = self.folder / "answers.json"
        content = {"images": [str(image) for image in self.images], "answers": str(answers), **asked}
        begun = time.monotonic()
        with (self.folder / "client.log").open("wb") as log, _patience(script):
            done = subprocess.run(  # noqa: S603 - a list built here
                argv,
                cwd=where,
                env=variables,
                input=json.dumps(content).encode(),
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
                start_new_session=True,
                timeout=PATIENCE,
            )
        whole = time.monotonic() - begun
        if done.returncode:
            raise SystemExit(f"{script} ended with {done.returncode}:\n{tail(self.folder / 'client.log')}")
        found = json.loads(done.stdout.splitlines()[-1])
        kept = json.loads(answers.read_text("utf-8"))
        return Measurement(startup=whole - found["seconds"], answers=kept, **found)
