"""`imagebatch score` through each model API: the same photographs, archive and two workers behind each.

    python3.11 -m benchmarks.run model-apis -- [--rounds 2] [--images 4800] [--publish]

Every way is started afresh in every round, warmed up, and asked about all images; the order is rotated from
round to round. All must answer as TorchServe does, on every image. Medians count. CPU-ms are those of client,
server and workers together: on a machine that others use, too, they tell more than the wall's rate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.lib import photographs
from benchmarks.lib.contestants import Contestant
from benchmarks.lib.ground import Ground
from benchmarks.lib.model import MODEL, NAME
from benchmarks.lib.published import keep, show
from benchmarks.lib.servers import end, started, tail
from benchmarks.lib.serving import command, served
from tools.loopback import free_ports
from tools.paths import ROOT, VAR, program, say

PATIENCE = 240.0
LIMIT = 600.0
WARM = 512
PIXELS = {"version": "1", "resize": 256, "crop": 224, "datatype": "UINT8", "layout": "NCHW"}
TAKES = {
    "files": {"datatype": "BYTES", "shape": [-1]},
    "pixels": {"datatype": "UINT8", "shape": [-1, 3, 224, 224]},
}


@dataclass(frozen=True)
class Way:
    """One way to score.

    Attributes:
        name: In the results.
        label: In the table.
        backend: `--backend`.
        peer: Folder of the server's environment; empty: TorchServe, or none.
        sent: What one image is sent as.
        grpc: Whether over gRPC.
    """

    name: str
    label: str
    backend: str
    peer: str = ""
    sent: str = "files"
    grpc: bool = False


WAYS = (
    Way("torchserve", "`torchserve`", "torchserve"),
    Way("local", "`local`", "local"),
    Way("kserve-pixels", "`oip`, two KServe over gRPC, pixels", "oip", "kserve", "pixels", grpc=True),
    Way("kserve-files", "`oip`, two KServe, files as base64", "oip", "kserve"),
    Way("kserve-v1", "`kserve_v1`, two KServe", "kserve_v1", "kserve"),
    Way("mlserver-pixels", "`oip`, MLServer over gRPC, pixels", "oip", "mlserver", "pixels", grpc=True),
    Way("mlserver-files", "`oip`, MLServer over gRPC, files as base64", "oip", "mlserver", grpc=True),
)


@dataclass(frozen=True)
class Measured:
    """Images per second of the wall, and CPU-milliseconds per image."""

    rate: float
    cpu: float


def main() -> int:
    """Measure, compare, publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=int, default=4800, help="fewer measure how each way starts")
    parser.add_argument("--only", nargs="+", default=[way.name for way in WAYS], metavar="NAME")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    asked = parser.parse_args()
    taken = photographs.ensure(VAR / "bench" / "photographs")
    ways = [way for way in WAYS if way.name in asked.only]
    found: dict[str, list[Measured]] = {way.name: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="imagebatch-apis-") as folder:
        ground = Ground(Path(folder))
        source = photographs.link(taken, Path(folder) / "images", asked.images)
        for number in range(asked.rounds):
            turn = number % len(ways)
            for way in ways[turn:] + ways[:turn]:
                measured, answers = _Turn(way, ground, source, asked.images).measured()
                found[way.name].append(measured)
                say(f"round {number}: {way.name:<18}{measured.rate:7.1f} images/s{measured.cpu:7.1f} CPU-ms")
                _require_same(ground.folder / "expected.json", answers, way)
    result = _summary(found)
    table = _table(result)
    say(table)
    if asked.publish:
        keep("model-apis", {"images": asked.images, "rounds": asked.rounds, "ways": result})
        show("model-apis", table)
    return 0


def _require_same(path: Path, answers: Any, way: Way) -> None:
    """Hold the answers to those of the first way that was measured."""
    if not path.exists():
        path.write_text(json.dumps(answers))
    elif json.loads(path.read_text()) != json.loads(json.dumps(answers)):
        raise SystemExit(f"{way.name} answers otherwise")


def _summary(found: dict[str, list[Measured]]) -> dict[str, Any]:
    first = found[next(iter(found))]
    return {
        name: {
            "images_per_second": round(statistics.median(one.rate for one in rounds), 1),
            "cpu_ms": round(statistics.median(one.cpu for one in rounds), 2),
            "rounds": [round(one.rate, 1) for one in rounds],
            "ratio": _ratio([one.rate for one in rounds], [one.rate for one in first]),
            "cpu_ratio": _ratio([one.cpu for one in first], [one.cpu for one in rounds]),
        }
        for name, rounds in found.items()
    }


def _ratio(these: list[float], those: list[float]) -> float:
    """Median of the ratios round by round: a shared machine changes its speed between rounds."""
    return round(statistics.median(a / b for a, b in zip(these, those, strict=True)), 2)


def _table(result: dict[str, Any]) -> str:
    labels = {way.name: way.label for way in WAYS}
    lines = [
        "| model API | images/s | of the first | CPU-ms per image | the first's are |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {labels[name]} | {found['images_per_second']:.0f} | {found['ratio']:.2f}"
        f" | {found['cpu_ms']:.1f} | {found['cpu_ratio']:.2f} |"
        for name, found in result.items()
    ]
    return "\n".join(lines)


class _Turn:
    """One way, measured once.

    Args:
        way: Which.
        ground: The archive, unpacked, and a folder.
        source: Folder of the images.
        count: How many there are.
    """

    def __init__(self, way: Way, ground: Ground, source: Path, count: int) -> None:
        self._way, self._ground, self._source, self._count = way, ground, source, count
        self._folder = Path(tempfile.mkdtemp(prefix=f"{way.name}-", dir=ground.folder))
        # TorchServe's workers refuse to run with the archive's modules on their path; others need them.
        self._who = who = (
            Contestant(way.name, way.label, "engine", "ours", way.peer)
            if way.peer
            else Contestant("ours", way.label, "ours", "ours", "pipeline_image")
        )
        self._mark = f"{way.name}-{os.getpid()}-{time.monotonic_ns()}"
        self._variables = ground.variables(who, self._mark)
        if way.peer:
            self._variables["PYTHONPATH"] += os.pathsep + str(who.folder)

    def measured(self) -> tuple[Measured, Any]:
        """Time `imagebatch score`, files to parts; give the answers, too."""
        try:
            with self._api() as variables:
                for run, count in (("run", self._count), ("warm", WARM)):
                    command(
                        variables, "preprocess", "--run-id", run, "--limit", count, "--input", self._source
                    )
                return self._scored(variables)
        finally:
            end(self._mark)

    def _scored(self, variables: dict[str, str]) -> tuple[Measured, Any]:
        answers = self._folder / "answers.json"
        asked = {
            "flags": ["--run-id", "run"],
            "warm": ["--run-id", "warm", "--pack-size", "32"],
            "run": str(self._folder / "runs" / "run"),
            "answers": str(answers),
        }
        done = subprocess.run(  # noqa: S603 - a list built here
            [program("pipeline_image", "python"), "-m", "benchmarks.lib.scorer"],
            cwd=ROOT,
            env=variables,
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            check=True,
            timeout=LIMIT,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        images = found["images"]
        told = Measured(images / found["seconds"], 1000 * found["cpu"] / images)
        return told, json.loads(answers.read_text("utf-8"))

    @contextmanager
    def _api(self) -> Iterator[dict[str, str]]:
        """Start what answers; give the variables of a command that asks it."""
        way = self._way
        own = {
            "IMAGEBATCH_BACKEND": way.backend,
            "IMAGEBATCH_RUNS_URI": str(self._folder / "runs"),
            "IMAGEBATCH_LOG_LEVEL": "error",
        }
        # The scorer has none of the archive's modules on its path, whoever serves them.
        asking = {**self._variables, **own, "PYTHONPATH": str(ROOT)}
        if way.backend == "torchserve":
            with served(self._ground.store, self._folder, self._variables) as api:
                told = {name: text for name, text in api.variables.items() if name.startswith("IMAGEBATCH_")}
                yield asking | told
        elif way.backend == "local":
            yield asking | {"IMAGEBATCH_MODEL_ARCHIVE": str(MODEL.archive)}
        else:
            with self._peer() as url:
                yield asking | {"IMAGEBATCH_API_URL": url, "IMAGEBATCH_MODEL_CARD": str(self._card())}

    @contextmanager
    def _peer(self) -> Iterator[str]:
        """Start MLServer with two workers, or two of KServe's servers, whose gRPC knows one."""
        urls = []
        with contextlib.ExitStack() as running:
            for _ in range(1 if self._way.peer == "mlserver" else 2):
                http, grpc, metrics = free_ports(3)
                more = {"PEER_PORT": str(http), "PEER_GRPC_PORT": str(grpc)}
                argv = [str(self._who.programs / "python"), str(self._who.folder / "api.py")]
                if self._way.peer == "mlserver":
                    self._configure(http, grpc, metrics)
                    argv = [str(self._who.programs / "mlserver"), "start", str(self._folder)]
                log = Path(tempfile.mkdtemp(dir=self._folder))
                begun = running.enter_context(started(argv, self._variables | more, self._folder, log))
                _wait(f"http://127.0.0.1:{http}/v2/models/{NAME}/ready", begun, log)
                urls.append(f"grpc://127.0.0.1:{grpc}" if self._way.grpc else f"http://127.0.0.1:{http}")
            yield ",".join(urls)

    def _configure(self, http: int, grpc: int, metrics: int) -> None:
        takes = {"name": "image", **TAKES[self._way.sent]}
        model = {"name": NAME, "implementation": "api.Images", "inputs": [takes]}
        ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
        settings = {"host": "127.0.0.1", "parallel_workers": 2, "metrics_dir": str(self._folder), **ports}
        settings["grpc_max_message_length"] = 1 << 26
        (self._folder / "model-settings.json").write_text(json.dumps(model))
        (self._folder / "settings.json").write_text(json.dumps(settings))

    def _card(self) -> Path:
        labels = json.loads((self._ground.model / "index_to_name.json").read_text("utf-8"))
        card: dict[str, Any] = {"labels": [labels[str(index)] for index in range(len(labels))]}
        if self._way.sent == "pixels":
            card["pixels"] = PIXELS
        elif self._way.backend == "kserve_v1":
            card["input"] = "image"
        path = self._folder / "card.json"
        path.write_text(json.dumps(card))
        return path


def _wait(url: str, begun: float, folder: Path) -> None:
    while time.monotonic() - begun < PATIENCE:
        with contextlib.suppress(OSError):
            urlopen(url, timeout=10).read()  # noqa: S310 - loopback
            return
        time.sleep(0.1)
    raise SystemExit(f"{url} did not answer in {PATIENCE:.0f} s:\n{tail(folder / 'server.log')}")


if __name__ == "__main__":
    sys.exit(main())
