"""Engines end to end: `imagebatch score`, files to parts, on one TorchServe that serves several archives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib.servers import WORKERS, started, wait_for_workers
from benchmarks.peers.stopwatch import MARK
from tools.paths import ROOT, program
from tools.torchserve import TorchServe

MODELS = ("solar-cells", "solar-cells-bf16-cascade", "solar-cells-int8-cascade")
PYTHON = program("pipeline_image", "python")
_WARM = 640


def measure(store: Path, images: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Score all images with every model, in interleaved rounds.

    Args:
        store: With the archives.
        images: Folder of the photographs.
        folder: For the server, runs and answers.
        rounds: That count.

    Returns:
        Per model: images/s of the stage without its start, CPU of client and server per image, and the share
        of images on which its class is the float32 engine's.
    """
    own = folder / "store"
    own.mkdir()
    for model in MODELS:
        shutil.copyfile(store / f"{model}.mar", own / f"{model}.mar")
    found: dict[str, list[dict[str, float]]] = {model: [] for model in MODELS}
    answers: dict[str, dict[str, Any]] = {}
    with serving(own, folder) as flags:
        for number in range(rounds):
            for model in MODELS:
                one, answers[model] = _score(flags, model, images, folder, number)
                found[model].append(one)
                print(f"round {number}, {model}: {one['images'] / one['seconds']:.0f} images/s", flush=True)
    exact = answers[MODELS[0]]
    return {
        "images": len(exact),
        "rounds": rounds,
        "models": {
            model: {
                "speed": _spread([one["images"] / one["seconds"] for one in ones]),
                "cpu_ms": _spread([one["cpu"] / one["images"] * 1000 for one in ones]),
                "same_class": round(
                    sum(answers[model][key][0][0] == exact[key][0][0] for key in exact) / len(exact), 5
                ),
            }
            for model, ones in found.items()
        },
    }


@contextlib.contextmanager
def serving(store: Path, folder: Path, settings: dict[str, object] | None = None) -> Iterator[list[str]]:
    """Serve every archive of a store with the shipped configuration; give the flags that reach it."""
    os.environ[MARK] = f"engines-{os.getpid()}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends with this process
    more = {"load_models": "all", "default_workers_per_model": WORKERS, **(settings or {})}
    server = TorchServe(folder / "server", store, more)
    server.configure()
    variables = os.environ | server.environment() | {"OMP_NUM_THREADS": "1"}
    with started(server.argv, variables, server.folder, folder) as begun:
        wait_for_workers(server, begun, folder, [path.stem for path in store.glob("*.mar")])
        key = f"--key-file={server.key_file}"
        yield [f"--api-url={server.inference}", f"--management-url={server.management}", key]


def _score(
    flags: Sequence[str], model: str, images: Path, folder: Path, number: int
) -> tuple[dict[str, float], dict[str, Any]]:
    runs = folder / "runs"
    where = {
        kind: ["--runs-uri", str(runs), "--run-id", f"{model}-{number}-{kind}"] for kind in ("warm", "run")
    }
    for kind, limit in (("warm", _WARM), ("run", 0)):
        plan = ["preprocess", *where[kind], "--input", str(images), "--limit", str(limit), "--model", model]
        command = [PYTHON, "-m", "imagebatch", *plan, *flags, "--log-level", "error"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - no shell; our own program and flags
    more = [*flags, "--log-level", "error"]
    asked = {kind: [*where[name], *more] for kind, name in (("warm", "warm"), ("flags", "run"))}
    kept = folder / "answers.json"
    paths = {"run": str(runs / f"{model}-{number}-run"), "answers": str(kept)}
    done = subprocess.run(  # noqa: S603 - no shell; our own program and flags
        [PYTHON, "-m", "benchmarks.lib.scorer"],
        input=json.dumps(asked | paths),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(runs)
    return json.loads(done.stdout.splitlines()[-1]), json.loads(kept.read_text())


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 2) for name, value in found.items()}
