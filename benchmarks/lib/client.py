"""Asks a server about photographs and times it. A process of its own, in the environment of benchmarks/.

Its input is one JSON object on standard input (`url`, `form`, `in_flight`, `pack`: most images a request,
`images`: paths, `warm`: how many to ask about before the clock starts, `answers`: where to write them); its
output one line of JSON: images, seconds, CPU-seconds of client and server. Any answer but 200 ends it: a
benchmark that loses images measures nothing.
"""

from __future__ import annotations

import http.client
import json
import queue
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from benchmarks.lib.forms import FORMS, Answer, Form
from benchmarks.peers.stopwatch import Stopwatch


def main() -> int:
    """Warm up, measure, write the answers."""
    asked: dict[str, Any] = json.load(sys.stdin)
    form = FORMS[asked["form"]]
    form = replace(form, images=min(form.images, asked["pack"]))
    images = [Path(path) for path in asked["images"]]
    ask = one_by_one if asked["form"] == "loop" else in_flight
    ask(asked["url"], form, images[: asked["warm"]], asked["in_flight"])
    for image in images:
        image.read_bytes()  # into the page cache, as for everyone: the disk is not what is compared
    watch = Stopwatch()
    answers = ask(asked["url"], form, images, asked["in_flight"])
    print(json.dumps({"images": len(images), **watch.read()}))
    Path(asked["answers"]).write_text(json.dumps(answers), encoding="utf-8")
    return 0


def one_by_one(url: str, form: Form, images: Sequence[Path], _: int) -> dict[str, Answer]:
    """One `requests.post` after the other, as tutorials show."""
    answers = {}
    for image in images:
        response = requests.post(url, data=image.read_bytes(), timeout=120)
        response.raise_for_status()
        (answers[image.name],) = form.read(response.content)
    return answers


def in_flight(url: str, form: Form, images: Sequence[Path], most: int) -> dict[str, Answer]:
    """Several requests under way, each thread on a connection that it keeps."""
    packs: queue.SimpleQueue[Sequence[Path]] = queue.SimpleQueue()
    for start in range(0, len(images), form.images):
        packs.put(images[start : start + form.images])
    answers: dict[str, Answer] = {}
    with ThreadPoolExecutor(most) as threads:
        asking = [threads.submit(_ask_all, url, form, packs, answers) for _ in range(most)]
    for each in asking:
        each.result()  # raises what its thread met
    return answers


def _ask_all(
    url: str, form: Form, packs: queue.SimpleQueue[Sequence[Path]], answers: dict[str, Answer]
) -> None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    while True:
        try:
            pack = packs.get_nowait()
        except queue.Empty:
            connection.close()
            return
        headers, body = form.write([image.read_bytes() for image in pack])
        connection.request("POST", address.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise SystemExit(f"{url} answers {response.status}: {content[:200]!r}")
        answers |= zip((image.name for image in pack), form.read(content), strict=True)


if __name__ == "__main__":
    sys.exit(main())
