"""A finished run is read once: how often each of its files is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.model_server import ModelServer, Wrong

# Counts every file below a folder that Python opens for reading while a command runs; prints it as JSON.
COUNTING = """
import collections, json, os, sys
opened = collections.Counter()
def count(event, arguments):
    if event == "open" and not isinstance(arguments[0], int) and "r" in (arguments[1] or ""):
        path = os.fsdecode(arguments[0])
        if path.startswith(sys.argv[1] + "/"):
            opened[path.removeprefix(sys.argv[1] + "/")] += 1
sys.addaudithook(count)
from imagebatch import cli
code = cli.call(sys.argv[2:])
print(json.dumps({"code": code, "opened": opened}))
"""


def opened_by(folder: Path, *arguments: str) -> dict[str, int]:
    """Reads of each file of a run by one command, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, str(folder), *arguments], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0, done.stderr
    return dict(found["opened"])


@pytest.fixture
def redriven(call: Call, images: Path, runs: Path, server: ModelServer) -> Path:
    """A run of three shards with a rejected file, a quarantined image, and a redrive of both."""
    poison = jpeg(1)
    (images / "empty.jpg").write_bytes(b"")
    server.faults = lambda _number, pack: (
        Wrong(500, b"Worker died.") if any(data == poison for _, data in pack) else None
    )
    arguments = ("--run-id", "r", "--input", images, "--shard-size", 15, "--max-failures", "20%")
    assert call("run", *arguments).last["failed"] == 1
    server.faults = lambda _number, _images: None
    assert call("redrive", "--run-id", "r").last["predicted"] == 40
    return runs / "r"


@pytest.mark.parametrize("command", ["verify", "postprocess"])
def test_each_file_is_opened_once(redriven: Path, command: str) -> None:
    """In a bucket each opening is a round trip: only the listing is read twice, by shard and as a whole."""
    opened = opened_by(redriven, command, "--run-id", "r")
    assert {path for path, times in opened.items() if times > 1} == {"listing.parquet"}
    assert opened["listing.parquet"] == 2
    certified = json.loads((redriven / "output/certificate.json").read_bytes())["files"]
    assert {file["path"] for file in certified} <= opened.keys()
    assert len(certified) > 20
