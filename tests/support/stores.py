"""What must hold of a run whose images and files are in a store, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
from imagebatch.runs.folder import open_run

from tests.support.calls import Call
from tests.support.images import jpeg

KEYS = ("a.jpg", "b//c.jpg", "b/c.jpg", "100%25.jpg", "a b+c&d=e.jpg", "what?.jpg", "x#1.jpg", "zelle-ü.jpg")


def require_one_creator(runs_uri: str) -> None:
    """Of eight that create the same file at once, one does, its content stays, and it can be replaced."""
    run = open_run(runs_uri, "one-creator")
    assert run.create("first", b"1")
    assert not run.create("first", b"2")
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda number: run.create("raced", b"%d" % number), range(8)))
    assert created.count(True) == 1
    assert run.read("raced") == b"%d" % created.index(True)
    run.write("first", b"3")
    assert run.read("first") == b"3"
    assert run.list("") == ["first", "raced"]


def require_a_run(call: Call, store: str, runs: Path, put: Callable[[str, bytes], None]) -> None:
    """A whole run in a store gives the bytes of the same run on a disk.

    Args:
        call: Calls the command line.
        store: URI of a place for images and runs.
        runs: Where the run on the disk lies.
        put: Writes an object, by its key below the store's URI.
    """
    photos = {key: jpeg(at) for at, key in enumerate(KEYS)}
    for key, data in photos.items():
        put(f"photos/{key}", data)
    put("photos.txt", "".join(f"photos/{key}\n" for key in KEYS).encode())
    elsewhere = ("--runs-uri", f"{store}/runs")
    source = ("--input", f"{store}/photos")
    for stage in (("preprocess", *source, "--shard-size", 3), ("score",), ("postprocess",), ("verify",)):
        outcome = call(stage[0], "--run-id", "r", *elsewhere, *stage[1:])
        assert outcome.code == 0, outcome.err
    assert (outcome.last["predicted"], outcome.last["rejected"]) == (len(KEYS), 0)
    assert call("preprocess", "--run-id", "r", *source, "--shard-size", 3).code == 0
    for stage in (("score",), ("postprocess",)):
        assert call(stage[0], "--run-id", "r").code == 0
    with fsspec.open(f"{store}/runs/r/output/predictions.csv", "rb") as stream:
        stored = stream.read()
    assert stored == (runs / "r/output/predictions.csv").read_bytes()
    other = call("preprocess", "--run-id", "r", *elsewhere, "--input", f"{store}/photos/b")
    assert (other.code, "another input" in other.err) == (78, True), other.err
    listed = call("preprocess", "--run-id", "list", "--manifest", f"{store}/photos.txt")
    assert (listed.last["accepted"], listed.last["rejected"]) == (len(KEYS), 0), listed.err
    missing = call("preprocess", "--run-id", "missing", "--manifest", f"{store}/none.csv")
    assert (missing.code, "no such file" in missing.err) == (78, True), missing.err
