"""`make bench`: every published measurement, in order, into benchmarks/results/ and docs/explanation/.

    python3.11 -m benchmarks.run [NAME …] [-- FLAGS]

Without names: all but the quick one and those that need the running stack. Run by the system's Python; each
benchmark runs in the environment that is named here, and the peers' environments are installed first.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

from tools.local.services import model_api
from tools.paths import ROOT, UV, Argv, program, run, say, step

EVERY_PEER = tuple(sorted(path.parent.name for path in ROOT.glob("benchmarks/peers/*/pyproject.toml")))


@dataclass(frozen=True)
class Benchmark:
    """How one is run: case and flags, in whose environment, with which peers; `alone`: only when named."""

    argv: list[str]
    part: str = "benchmarks"
    peers: tuple[str, ...] = ()
    alone: bool = False


BENCHMARKS = {
    "memory": Benchmark(["memory", "--publish"], "pipeline_image"),
    "store-requests": Benchmark(["store_requests", "--publish"], "pipeline_image"),
    "peers": Benchmark(["peers", "--publish", "--fresh"], peers=EVERY_PEER),
    "night": Benchmark(
        ["peers", "--data", "night", "--publish", "--fresh", "--only", "ours", "ceiling", "fastapi-ours"],
        peers=("fastapi",),
    ),
    "large": Benchmark(
        [
            *("peers", "--data", "large", "--publish", "--fresh", "--rounds", "5", "--rest-rounds", "1"),
            *("--images", "360", "--slow-images", "60"),
        ],
        peers=EVERY_PEER,
    ),
    "solar-cells": Benchmark(["peers", "--data", "solar-cells", "--publish", "--fresh"], peers=EVERY_PEER),
    "scaled": Benchmark(["scaled", "--publish"], "training"),
    "engines": Benchmark(["engines", "--publish"], "training"),
    "wire": Benchmark(["wire", "--publish"], "pipeline_image"),
    "model-apis": Benchmark(["model_apis", "--publish"], peers=("kserve", "mlserver")),
    "growth": Benchmark(["growth", "--publish"]),
    "drift": Benchmark(["drift", "--publish"], "pipeline_image"),
    "trends": Benchmark(["trends", "--publish"], "pipeline_image"),
    "drift-cost": Benchmark(["drift_cost", "--publish"], "pipeline_image"),
    "scale": Benchmark(["scale", "--publish"]),
    "model-folds": Benchmark(["model_folds", "--publish"], "training", alone=True),
    "model-adapted": Benchmark(["model_adapted", "--publish"], "training", alone=True),
    "celery": Benchmark(["celery", "--publish"], "pipeline_image", alone=True),
    "whole-run": Benchmark(["whole_run", "--publish"], alone=True),
    "dag-overhead": Benchmark(["dag_overhead", "--publish"], alone=True),
    "small-run": Benchmark(["small_run"], alone=True),
    "quick": Benchmark(["peers", "--quick"], peers=("torch",), alone=True),
    "peers-more": Benchmark(["peers"], peers=EVERY_PEER, alone=True),
}


def main(argv: list[str]) -> int:
    """Run benchmarks, also after one has failed.

    Args:
        argv: names of benchmarks; after `--`, flags for each of them.

    Returns:
        0, or the exit code of the first that failed; 2 for an unknown name.
    """
    names, flags = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        say(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
        return 2
    wanted = [name for name, each in BENCHMARKS.items() if name in names or not (names or each.alone)]
    install(sorted({part for name in wanted for part in _parts(BENCHMARKS[name])}))
    codes = [measure(name, flags) for name in wanted]
    return next((code for code in codes if code), 0)


def install(parts: list[str]) -> None:
    """Bring the benchmarks' own environments to the state of their locks."""
    for part in parts:
        sync: Argv = [UV, "sync", "--frozen", "--quiet", "--project", ROOT / part]
        checked = subprocess.run([*sync, "--check"], capture_output=True, check=False)  # noqa: S603 (a list built here)
        if checked.returncode:
            with step(f"install: {part}"):
                run(sync)


def measure(name: str, flags: list[str]) -> int:
    """Run one benchmark; returns its exit code."""
    say(f"== {name}")
    benchmark = BENCHMARKS[name]
    case, *own = benchmark.argv
    argv: Argv = [program(benchmark.part, "python"), "-m", f"benchmarks.cases.{case}", *own, *flags]
    return subprocess.run(argv, cwd=ROOT, env=os.environ | model_api(), check=False).returncode  # noqa: S603 (a list built here)


def _parts(benchmark: Benchmark) -> list[str]:
    own = ["benchmarks"] if benchmark.part == "benchmarks" else []
    return own + [f"benchmarks/peers/{peer}" for peer in benchmark.peers]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
