"""Images per second: a loop of one `requests.post` per image, and `imagebatch score`, on the same TorchServe.

    make up
    python3 benchmarks/run.py throughput [--images 1000] [--rounds 3]

Rounds are interleaved, so that both meet the same machine; the figure is the ratio of the medians. The time
of `imagebatch score` is that of its whole process: start, golden images, scoring, writing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import published
import requests

MODEL = "solar-cells"
_DEFAULTS = {"API_URL": "http://127.0.0.1:8080", "KEY_FILE": "var/torchserve/key_file.json"}
CONFIGURATION = 78  # exit code, docs/reference/protocol.md


def main() -> int:
    """Measures both and prints the table."""
    asked = _arguments()
    photographs = sorted(asked.input.glob("*.png"))[: asked.images]
    if not photographs:
        return _missing(f"no photographs in {asked.input}: run `make demo` once")
    try:
        requests.get(f"{_setting('API_URL')}/ping", headers=_key(), timeout=5).raise_for_status()
    except (requests.RequestException, OSError, ValueError, KeyError):
        return _missing(f"no TorchServe answers at {_setting('API_URL')}: run `make up`, after a `make demo`")
    rounds: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="imagebatch-throughput-") as folder:
        for number in range(asked.rounds + 1):
            pair = one_by_one(photographs), in_batches(len(photographs), asked.input, Path(folder), number)
            print(f"round {number}: {pair[0]:.0f} and {pair[1]:.0f} images/s", flush=True)
            rounds += [pair] if number else []  # the first only warms the server up
    result = summary(len(photographs), rounds)
    print(table(result))
    if asked.publish:
        published.keep("throughput", result)
        published.show("throughput", table(result))
    return 0


def one_by_one(photographs: Sequence[Path]) -> float:
    """Images per second of the loop that most tutorials show."""
    headers = _key() | {"Content-Type": "application/octet-stream"}
    started = time.monotonic()
    for photograph in photographs:
        url = f"{_setting('API_URL')}/predictions/{MODEL}"
        requests.post(url, data=photograph.read_bytes(), headers=headers, timeout=60).raise_for_status()
    return len(photographs) / (time.monotonic() - started)


def in_batches(images: int, source: Path, folder: Path, number: int) -> float:
    """Images per second of `imagebatch score`, on a run that is prepared outside the measured time."""
    where = ["--run-id", f"round-{number}", "--runs-uri", str(folder), "--log-level", "error"]
    _imagebatch("preprocess", *where, "--input", str(source), "--limit", str(images), "--model", MODEL)
    started = time.monotonic()
    last = _imagebatch("score", *where)
    seconds = time.monotonic() - started
    if last["predicted"] != images:
        raise SystemExit(f"only {last['predicted']} of {images} images were predicted")
    return images / seconds


def summary(images: int, rounds: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Medians, the range of both, and the ratio of the medians."""
    loop, batches = ([pair[side] for pair in rounds] for side in (0, 1))
    return {
        "images": images,
        "rounds": len(rounds),
        "loop": _spread(loop),
        "imagebatch": _spread(batches),
        "ratio": round(statistics.median(batches) / statistics.median(loop), 2),
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = ["| how | images/s, median | lowest to highest |", "|---|---|---|"]
    for name, key in (
        ("one `requests.post` per image, in a loop", "loop"),
        ("`imagebatch score`", "imagebatch"),
    ):
        one = result[key]
        lines.append(f"| {name} | {one['median']:.0f} | {one['lowest']:.0f} to {one['highest']:.0f} |")
    return "\n".join([*lines, "", f"Ratio {result['ratio']:.1f}; {result['images']:,} photographs a round."])


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 1) for name, value in found.items()}


def _imagebatch(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603 (a list built here)
        [sys.executable, "-m", "imagebatch", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def _setting(name: str) -> str:
    return os.environ.get(f"IMAGEBATCH_{name}") or _DEFAULTS[name]


def _key() -> dict[str, str]:
    keys = json.loads(Path(_setting("KEY_FILE")).read_bytes())
    return {"Authorization": f"Bearer {keys['inference']['key']}"}


def _missing(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return CONFIGURATION


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--input", type=Path, required=True, help="folder of PNG photographs")
    parser.add_argument("--images", type=int, default=1000, help="photographs per round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count, after one that does not")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
