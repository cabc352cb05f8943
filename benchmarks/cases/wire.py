"""Forms of a request: 32 images as multipart, length-prefixed, JSON, by memory; one image with batching.

    pipeline_image/.venv/bin/python -m benchmarks.cases.wire [--rounds 5] [--publish]

All on one TorchServe with the shipped configuration and two workers per model, rounds interleaved, the same
client. Needs the archives of `benchmarks.cases.engines`, and a machine that does nothing else for four
minutes.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imagebatch.model_apis.torchserve.shared_memory import SharedMemory

from benchmarks.cases.engines_served import serving
from benchmarks.lib import published
from benchmarks.peers.stopwatch import Stopwatch
from tools.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "wire.md"
PACK, LARGE_PACK, PACKS_IN_FLIGHT, SINGLES_IN_FLIGHT = 32, 128, 4, 16
_BOUNDARY = "----imagebatch"
# What a length-prefixed body costs is measured with a handler that reads one; the shipped one does not.
_LENGTHS = """

_shipped = parse


def parse(row, headers, settings):
    if headers.get("Content-Type", headers.get("content-type")) != "application/octet-stream":
        return _shipped(row, headers, settings)
    body, images, start = memoryview(row["body"]), [], 0
    while start < len(body):
        size = int.from_bytes(body[start : start + 4], "big")
        images.append((str(len(images)), body[start + 4 : start + 4 + size]))
        start += 4 + size
    return Request(tuple(images), settings.top_k)
"""
Body = tuple[str, bytes]
_thread = threading.local()


def main() -> int:
    """Measure, print, and keep what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--images", type=int, default=1024, help="images a round")
    parser.add_argument("--publish", action="store_true", help="keep the figures, write the page")
    asked = parser.parse_args()
    source = ROOT / "var" / "benchmarks" / "engines" / "solar-cells.mar"
    files = sorted((ROOT / "var" / "data" / "solar-cells" / "images").glob("*.png"))
    if not source.is_file() or not files:
        print("error: no archive or images: run `make demo`, then benchmarks.cases.engines", file=sys.stderr)
        return 78
    images = [path.read_bytes() for path in files[: asked.images]]
    with tempfile.TemporaryDirectory(prefix="imagebatch-wire-") as temporary:
        folder = Path(temporary)
        make_archives(source, folder / "store")
        with serving(folder / "store", folder, {"job_queue_size": 200}) as flags:
            result = measure(flags, images, asked.rounds)
    print(table(result))
    if asked.publish:
        published.keep("wire", result)
        _write_page(table(result))
    return 0


def make_archives(source: Path, store: Path) -> None:
    """Make the archives: as shipped, reading length-prefixed bodies, and with server-side batches."""
    store.mkdir()
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = members["model-config.yaml"].decode()
    wire = members["imagebatch_wire.py"].decode()
    for name, change in {
        "shipped": {},
        "lengths": {"imagebatch_wire.py": wire + _LENGTHS},
        "batch4": {"model-config.yaml": config.replace("batchSize: 1", "batchSize: 4\nmaxBatchDelay: 5")},
        "batch8": {"model-config.yaml": config.replace("batchSize: 1", "batchSize: 8\nmaxBatchDelay: 20")},
    }.items():
        manifest = json.loads(members["MAR-INF/MANIFEST.json"])
        manifest["model"]["modelName"] = name
        new = {"MAR-INF/MANIFEST.json": json.dumps(manifest)} | change
        with zipfile.ZipFile(store / f"{name}.mar", "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in (members | new).items():
                archive.writestr(member, content)


def mixed(images: Sequence[bytes]) -> Body:
    """Return a body with a part per image, named by its id, of the type that the front end does not read."""
    return f"multipart/mixed; boundary={_BOUNDARY}", form_data(images)[1]


def form_data(images: Sequence[bytes]) -> Body:
    """Return the same body in the type that the front end parses."""
    parts = []
    for number, content in enumerate(images):
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{number}"; filename="{number}"\r\n'
        parts += [f"{head}Content-Type: application/octet-stream\r\n\r\n".encode(), content, b"\r\n"]
    return f"multipart/form-data; boundary={_BOUNDARY}", b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()])


def lengths(images: Sequence[bytes]) -> Body:
    """Four bytes of length, then the image, and again."""
    parts = (part for content in images for part in (len(content).to_bytes(4, "big"), content))
    return "application/octet-stream", b"".join(parts)


def document(images: Sequence[bytes]) -> Body:
    """Return a JSON document with base64."""
    instances = [{"id": str(n), "b64": base64.b64encode(one).decode()} for n, one in enumerate(images)]
    return "application/json", json.dumps({"instances": instances}).encode()


def memory(images: Sequence[bytes]) -> Body:
    """Where this process holds the images; it closes them when this thread makes its next request."""
    _thread.held = SharedMemory(images)
    sizes = [(str(number), len(content)) for number, content in enumerate(images)]
    return "application/json", json.dumps({"memory": _thread.held.place, "images": sizes}).encode()


def single(images: Sequence[bytes]) -> Body:
    """One image as the body."""
    return "application/octet-stream", images[0]


CASES: dict[str, tuple[str, Callable[[Sequence[bytes]], Body], int, int]] = {
    "multipart/mixed": ("shipped", mixed, PACK, PACKS_IN_FLIGHT),
    "multipart/form-data": ("shipped", form_data, PACK, PACKS_IN_FLIGHT),
    "length-prefixed": ("lengths", lengths, PACK, PACKS_IN_FLIGHT),
    "JSON, base64": ("shipped", document, PACK, PACKS_IN_FLIGHT),
    "by memory": ("shipped", memory, PACK, PACKS_IN_FLIGHT),
    "multipart/mixed, 128 images": ("shipped", mixed, LARGE_PACK, PACKS_IN_FLIGHT),
    "by memory, 128 images": ("shipped", memory, LARGE_PACK, PACKS_IN_FLIGHT),
    "one image, no server-side batch": ("shipped", single, 1, SINGLES_IN_FLIGHT),
    "one image, batchSize 4, maxBatchDelay 5 ms": ("batch4", single, 1, SINGLES_IN_FLIGHT),
    "one image, batchSize 8, maxBatchDelay 20 ms": ("batch8", single, 1, SINGLES_IN_FLIGHT),
}


def measure(flags: Sequence[str], images: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Every case in interleaved rounds; the first round only warms up."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, case in CASES.items():
            one = _ask(flags, case, images)
            print(f"round {number}, {name}: {one['speed']:.0f} images/s", flush=True)
            found[name] += [one] if number else []
    figures = {
        name: {key: _spread([one[key] for one in ones]) for key in ones[0]} for name, ones in found.items()
    }
    return {"images": len(images), "rounds": rounds, "cases": figures}


def _ask(flags: Sequence[str], case: tuple[Any, ...], images: Sequence[bytes]) -> dict[str, float]:
    model, write, size, in_flight = case
    options = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    key = json.loads(Path(options["key-file"]).read_text())["inference"]["key"]
    packs: Iterator[Sequence[bytes]] = iter([images[i : i + size] for i in range(0, len(images), size)])
    waits: list[float] = []

    def client(_: int) -> int:
        address = urlsplit(options["api-url"])
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
        answered = 0
        for pack in packs:  # shared: a list's iterator hands every pack to one client
            begun = time.perf_counter()
            kind, body = write(pack)
            headers = {"Content-Type": kind, "Authorization": f"Bearer {key}"}
            connection.request("POST", f"/predictions/{model}", body, headers)
            reply = json.loads(connection.getresponse().read())
            answered += sum("labels" in entry for entry in reply["images"])
            waits.append(time.perf_counter() - begun)
        return answered

    watch = Stopwatch()
    with ThreadPoolExecutor(in_flight) as pool:
        answered = sum(pool.map(client, range(in_flight)))
    spent = watch.read()
    if answered != len(images):
        raise SystemExit(f"only {answered} of {len(images)} images were answered")
    waits.sort()
    return {
        "speed": answered / spent["seconds"],
        "cpu_ms": spent["cpu"] / answered * 1000,
        "wait_ms": statistics.median(waits) * 1000,
        "wait_ms_95": waits[int(len(waits) * 0.95)] * 1000,
    }


def table(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    base = result["cases"]["multipart/mixed"]["speed"]["median"]
    lines = [
        "| request | images/s | against the first | CPU-ms per image | a request takes, median and 95 % |",
        "|---|---|---|---|---|",
    ]
    for name, one in result["cases"].items():
        speed = one["speed"]
        spread = f"{speed['median']:.0f} ({speed['lowest']:.0f} to {speed['highest']:.0f})"
        waits = f"{one['wait_ms']['median']:.0f} and {one['wait_ms_95']['median']:.0f} ms"
        cells = [name, spread, f"{speed['median'] / base:.2f}", f"{one['cpu_ms']['median']:.2f}", waits]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_page(text: str) -> None:
    begin, end = "<!-- begin wire -->", "<!-- end wire -->"
    before, found, rest = PAGE.read_text("utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE} lacks the marks {begin} and {end}")
    said = f"{text}\n\nMeasured on: {published.machine()}."
    PAGE.write_text(f"{before}{begin}\n{said}\n{end}{after}", encoding="utf-8")


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
