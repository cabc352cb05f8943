"""Runs in a bucket: a real S3 server (SeaweedFS) behind a proxy that fails a share of the requests."""

import json
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.children import Child
from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.system.chaos.ground import Ground, scenario
from tests.system.chaos.runs import Result, Run
from tests.system.kit.verdict import RefutedError, require
from tools.loopback import ask, free_ports
from tools.paths import program

# Of a server that lives for one scenario and listens on loopback only.
_KEYS = {"accessKey": "chaos", "secretKey": secrets.token_urlsafe(16)}
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": _KEYS["accessKey"],
    "AWS_SECRET_ACCESS_KEY": _KEYS["secretKey"],
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_SHARE = 0.05
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
_INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error</Message></Error>"


@dataclass(frozen=True)
class Bucket:
    """A run in the bucket `runs`, read through the store's own HTTP API, not through S3."""

    filer: str
    run_id: str

    def read(self, path: str) -> bytes:
        """Content of an object."""
        return ask(f"{self.filer}/buckets/runs/{self.run_id}/{path}")


class Store:
    """An S3 server with the buckets `runs` and `photographs`.

    Attributes:
        s3: Its S3 API.
        filer: Its plain HTTP API: `PUT` and `GET` below `/buckets/`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        names = ("master", "volume", "filer", "s3")
        ports = dict(zip(names, free_ports(4), strict=True))
        grpc = dict(zip(names, free_ports(4), strict=True))
        identity = {"name": "chaos", "credentials": [_KEYS], "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        flags = [f"-{name}.port={port}" for name, port in ports.items()]
        flags += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
        flags += [
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
        ]
        flags += [f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}"]
        flags += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        weed = str(program("pipeline_image", "weed"))
        self._process = Child(
            [weed, "server", *flags], environment={"HOME": str(folder)}, log=folder / "weed.log"
        )
        self.s3 = f"http://127.0.0.1:{ports['s3']}"
        self.filer = f"http://127.0.0.1:{ports['filer']}"
        self._wait()

    def close(self) -> None:
        """Ends the server."""
        self._process.kill()

    def put(self, path: str, content: bytes) -> None:
        """Writes an object, `bucket/key`."""
        headers = {"Content-Type": "application/octet-stream"}
        ask(f"{self.filer}/buckets/{path}", method="PUT", body=content, headers=headers, seconds=150)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.running:
            try:
                self.put("runs/.started", b"yes")
                ask(f"{self.s3}/status")
            except OSError:
                time.sleep(0.3)
            else:
                return
        raise RefutedError(f"the S3 server did not start: {self._process.err[-300:]}")


class Flaky:
    """Fails a share of the requests, one half before the store sees them and one half after it has obeyed.

    Beside these, every third conditional write is done, and its reply lost.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._random = random.Random(5)
        self._lock = threading.Lock()
        self._lost_replies: set[int] = set()
        self.failed = self._conditional = self.lost = 0

    def before(self, asked: Asked) -> Wrong | None:
        """Refuses a request, or remembers to lose its reply."""
        with self._lock:
            if asked.headers.get("If-None-Match"):
                self._conditional += 1
                if self._conditional % 3 == 1:
                    self._lost_replies.add(asked.number)
                    self.failed += 1
                    return None
            if self._random.random() >= self._share:
                return None
            self.failed += 1
            kind = self._random.choice(("slow", "internal", "lost", "lost"))
            if kind == "lost":
                self._lost_replies.add(asked.number)
                return None
        return Wrong(503, _SLOW_DOWN) if kind == "slow" else Wrong(500, _INTERNAL)

    def after(self, asked: Asked, reply: Wrong) -> Wrong:
        """Loses a reply."""
        if asked.number not in self._lost_replies:
            return reply
        with self._lock:
            self.lost += bool(asked.headers.get("If-None-Match"))
        return Wrong(500, _INTERNAL)


@contextmanager
def _store(ground: Ground, name: str) -> Iterator[Store]:
    store = Store(ground.folder / name)
    try:
        yield store
    finally:
        store.close()


def _run(ground: Ground, store: Store, run_id: str, endpoint: str) -> Run:
    run = ground.run(run_id)
    run.environment = {
        **run.environment,
        "IMAGEBATCH_RUNS_URI": "s3://runs",
        "AWS_ENDPOINT_URL": endpoint,
        **CREDENTIALS,
    }
    run.files = Bucket(store.filer, run_id)
    return run


@scenario
def s3_errors(ground: Ground) -> Result:
    """Photographs and run are on S3, which fails 5 % of all requests, half of these after having obeyed, and
    loses its reply to every third conditional write."""
    flaky = Flaky(_SHARE)
    with (
        _store(ground, "flaky-store") as store,
        Relay(store.s3, before=flaky.before, after=flaky.after) as relay,
    ):
        half = ground.ids[::2]
        for name in half:
            store.put(f"photographs/{name}", (ground.photographs / name).read_bytes())
        run = _run(ground, store, "s3-errors", relay.url)
        ground.expect_only(run, half)
        stages = [
            ("preprocess", "--input", "s3://photographs", "--shard-size", "60"),
            ("score", "--pack-size", "8"),
        ]
        again = sum(_until_done(run, *stage) for stage in stages)
        require(flaky.lost >= 5, f"only {flaky.lost} conditional writes lost their reply")
        return run.settle(f"{flaky.failed} of {relay.requests} requests failed, {again} stages ran again")


def _until_done(run: Run, *command: str) -> int:
    """Runs a stage until it ends with 0, as an orchestrator would; returns how often it ran again."""
    for again in range(5):
        if run.end(run.start(*command), codes=(0, 74, 75)) == 0:
            return again
    raise RefutedError(f"{command[0]} did not succeed in 5 attempts")


@scenario
def s3_two_scorers(ground: Ground) -> Result:
    """Two scorers are started at once on a run in a bucket: one finishes, the other ends with 75."""
    with _store(ground, "shared-store") as store:
        run = _run(ground, store, "s3-two-scorers", store.s3)
        run.preprocess("--input", str(ground.photographs))
        both = [run.start_score(), run.start_score()]
        codes = sorted(run.end(one, codes=(0, 75)) for one in both)
        require(0 in codes, f"neither finished: {codes}")
        return run.settle(f"exit codes {codes[0]} and {codes[1]}")
