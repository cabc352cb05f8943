"""Runs and their images in each of the three object stores: calm, killed, failing, and without conditions."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from functools import partial
from random import Random
from urllib.error import HTTPError

from tests.support.children import Child, last_line
from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.support.store_servers import SERVERS, SeaweedFS, StoreServer
from tests.system.chaos.ground import Ground
from tests.system.chaos.runs import Result, Run
from tests.system.chaos.serving import wait_for_requests
from tests.system.kit.scenario import Scenario, described
from tests.system.kit.verdict import RefutedError, require

PART = "stores"
_SHARE = 0.05
_NOT_FOUND = 404


@dataclass(frozen=True)
class Dialect:
    """How a store says that it fails, and how a client asks it for a condition.

    Attributes:
        busy: A reply to a request that comes too often.
        internal: A reply to one that went wrong inside.
        header: Of a conditional write; empty: it is in the address.
    """

    busy: Wrong
    internal: Wrong
    header: str = "If-None-Match"

    def is_conditional(self, asked: Asked) -> bool:
        """Tell whether a write may only create."""
        if self.header:
            return bool(asked.headers.get(self.header)) and asked.method == "PUT"
        return "ifGenerationMatch=0" in asked.path

    def without_condition(self, asked: Asked) -> Asked:
        """The same request, as a store reads it that does not know the condition."""
        headers = Message()
        for name, value in asked.headers.items():
            if name != self.header:
                headers[name] = value
        path = asked.path.replace("&ifGenerationMatch=0", "").replace("ifGenerationMatch=0&", "")
        return replace(asked, headers=headers, path=path)


def _xml(status: int, code: str) -> Wrong:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return Wrong(status, body, {"Content-Type": "application/xml", "x-ms-error-code": code})


def _json(status: int, reason: str) -> Wrong:
    told = f'{{"error": {{"code": {status}, "message": "{reason}", "errors": [{{"reason": "{reason}"}}]}}}}'
    return Wrong(status, told.encode(), {"Content-Type": "application/json"})


DIALECTS = {
    "s3": Dialect(_xml(503, "SlowDown"), _xml(500, "InternalError")),
    "gs": Dialect(_json(429, "rateLimitExceeded"), _json(503, "backendError"), header=""),
    "az": Dialect(_xml(503, "ServerBusy"), _xml(500, "InternalError")),
}


class Flaky:
    """Fails a share of the requests, one half before the store sees them and one half after it has obeyed.

    Beside these, every third conditional write is done, and its reply lost.
    """

    def __init__(self, dialect: Dialect, share: float) -> None:
        self._dialect = dialect
        self._share = share
        self._random = Random(5)
        self._lock = threading.Lock()
        self._lost_replies: set[int] = set()
        self.failed = self._conditional = self.lost = 0

    def before(self, asked: Asked) -> Wrong | None:
        """Refuses a request, or remembers to lose its reply."""
        with self._lock:
            if self._dialect.is_conditional(asked):
                self._conditional += 1
                if self._conditional % 3 == 1:
                    self._lost_replies.add(asked.number)
                    self.failed += 1
                    return None
            if self._random.random() >= self._share:
                return None
            self.failed += 1
            kind = self._random.choice(("busy", "internal", "lost", "lost"))
            if kind == "lost":
                self._lost_replies.add(asked.number)
                return None
        return replace(self._dialect.busy if kind == "busy" else self._dialect.internal)

    def after(self, asked: Asked, reply: Wrong) -> Wrong:
        """Loses a reply."""
        if asked.number not in self._lost_replies:
            return reply
        with self._lock:
            self.lost += self._dialect.is_conditional(asked)
        return replace(self._dialect.internal)


@dataclass(frozen=True)
class Bucket:
    """A run in the bucket `runs`, read beside the client under test."""

    server: StoreServer
    run_id: str

    def read(self, path: str) -> bytes:
        """Content of an object."""
        return self.server.get(f"runs/{self.run_id}/{path}")


@dataclass(frozen=True)
class Place:
    """A store with half of the photographs, and a run that is to be there.

    Attributes:
        ground: What all scenarios stand on.
        server: The store.
        run: Has not begun.
    """

    ground: Ground
    server: StoreServer
    run: Run

    def preprocess(self) -> None:
        """Lists the photographs."""
        self.run.preprocess(*self.listed)

    @property
    def listed(self) -> tuple[str, ...]:
        """Flags that name the photographs, for a preprocess that asks the model server itself."""
        source = f"{self.server.scheme}://data/photographs"
        return ("--input", source, "--api-url", self.ground.server.inference)

    def through(self, endpoint: str) -> None:
        """Lets the run's commands find the store at a proxy."""
        self.run.environment = {**self.run.environment, **self.server.environment(endpoint)}


@contextmanager
def _place(ground: Ground, name: str, server: StoreServer, *, api_url: str = "") -> Iterator[Place]:
    try:
        half = ground.ids[::2]
        for photograph in half:
            server.put(f"data/photographs/{photograph}", (ground.photographs / photograph).read_bytes())
        run = ground.run(f"{name}-{server.scheme}", api_url=api_url)
        run.environment = {**run.environment, "IMAGEBATCH_RUNS_URI": f"{server.scheme}://runs"}
        run.files = Bucket(server, run.run_id)
        ground.expect_only(run, half)
        place = Place(ground, server, run)
        place.through(server.url)
        yield place
    finally:
        server.close()


def calm(ground: Ground, server: StoreServer) -> Result:
    """Nothing is done to it."""
    with _place(ground, "calm", server) as place:
        place.preprocess()
        place.run.score()
        return place.run.settle("the bytes of the run on a disk")


def killed(ground: Ground, server: StoreServer) -> Result:
    """The scorer is killed (SIGKILL) in the middle of a shard, and postprocess when it has written one of its
    files and is about to write the next."""
    with (
        Relay(ground.server.inference) as model,
        _place(ground, "killed", server, api_url=model.url) as place,
    ):
        run = place.run
        place.preprocess()
        scoring = run.start_score()
        wait_for_requests(model, model.requests + 12, scoring)
        require(scoring.running, "the scorer ended before it was killed")
        scoring.kill()
        run.score()
        ended: list[Child] = []

        def before(asked: Asked) -> Wrong | None:
            if asked.method in {"PUT", "POST"} and (b"output/" in asked.body or "output/" in asked.path):
                written.append(asked.number)
            if len(written) == 2:
                postprocess.kill()
                ended.append(postprocess)
                return Wrong(hang_up=True)
            return None

        written: list[int] = []
        with Relay(server.url, before=before) as relay:
            place.through(relay.url)
            postprocess = run.start("postprocess")
            postprocess.wait()
        require(ended, "postprocess ended before it was killed")
        require(not _is_there(place, "_SUCCESS"), "_SUCCESS is there before its files")
        place.through(server.url)
        return run.settle("scorer and postprocess killed, each once")


def store_killed(ground: Ground, server: StoreServer) -> Result:
    """The store is ended in the middle of a shard and started again 3 s later, on the data on its disk."""
    with (
        Relay(ground.server.inference) as model,
        _place(ground, "store-killed", server, api_url=model.url) as place,
    ):
        place.preprocess()
        scoring = place.run.start_score()
        wait_for_requests(model, model.requests + 12, scoring)
        server.end()
        threading.Event().wait(3)
        server.start()
        again = 0
        if place.run.end(scoring, codes=(0, 74, 75)):
            again = 1 + _until_done(place.run, "score", "--pack-size", "8")
        return place.run.settle(f"ended by {server.ending.name}, score ran again {again} times")


def errors(ground: Ground, server: StoreServer) -> Result:
    """The store fails 5 % of all requests, half of these after having obeyed, and loses its reply to every
    third conditional write."""
    flaky = Flaky(DIALECTS[server.scheme], _SHARE)
    with (
        _place(ground, "errors", server) as place,
        Relay(server.url, before=flaky.before, after=flaky.after) as relay,
    ):
        place.through(relay.url)
        stages = [("preprocess", "--shard-size", "60", *place.listed), ("score", "--pack-size", "8")]
        again = sum(_until_done(place.run, *stage) for stage in stages)
        again += _until_done(place.run, "postprocess") + _until_done(place.run, "verify")
        require(flaky.lost >= 3, f"only {flaky.lost} conditional writes lost their reply")
        seen = f"{flaky.failed} of {relay.requests} requests failed, {flaky.lost} of them conditional writes"
        return place.run.judge(f"{seen} that had been done; {again} stages ran again")


def condition_ignored(ground: Ground, server: StoreServer) -> Result:
    """A proxy takes the condition out of every conditional write, so that two could create one object: the
    run must be refused before it claims anything."""
    if isinstance(server, SeaweedFS):
        server.close()  # whose requests are signed, their headers with them
        server = SeaweedFS(server.folder / "unsigned", signed=False)
    dialect = DIALECTS[server.scheme]
    with _place(ground, "condition-ignored", server) as place:
        spoilt: list[int] = []

        def passed(asked: Asked) -> Asked:
            if not dialect.is_conditional(asked):
                return asked
            spoilt.append(asked.number)
            return dialect.without_condition(asked)

        with Relay(server.url, passed=passed) as relay:
            place.through(relay.url)
            refused = place.run.start("preprocess", *place.listed)
            place.run.end(refused, codes=(78,))
        told = last_line(refused.err)
        require("does not keep conditional writes" in told, f"another reason: {told}")
        require(spoilt, "no conditional write was asked for")
        claimed = [path for path in ("run.json", "listing.parquet") if _is_there(place, path)]
        require(not claimed, f"it had claimed {claimed}")
        return Result(0, 0, 0, math.nan, "refused with 78, nothing claimed")


def two_scorers(ground: Ground, server: StoreServer) -> Result:
    """Two scorers are started at once: one finishes, the other ends with 75."""
    with _place(ground, "two-scorers", server) as place:
        place.preprocess()
        both = [place.run.start_score(), place.run.start_score()]
        codes = sorted(place.run.end(one, codes=(0, 75)) for one in both)
        require(0 in codes, f"neither finished: {codes}")
        return place.run.settle(f"exit codes {codes[0]} and {codes[1]}")


def _is_there(place: Place, path: str) -> bool:
    try:
        place.run.files.read(path)
    except HTTPError as error:
        if error.code != _NOT_FOUND:
            raise
        return False
    return True


def _until_done(run: Run, *command: str) -> int:
    """Runs a stage until it ends with 0, as an orchestrator would; returns how often it ran again."""
    for again in range(5):
        if run.end(run.start(*command), codes=(0, 74, 75)) == 0:
            return again
    raise RefutedError(f"{command[0]} did not succeed in 5 attempts")


Act = Callable[[Ground, StoreServer], Result]


def _in_store(act: Act, scheme: str, ground: Ground) -> Result:
    folder = ground.folder / f"{act.__name__.replace('_', '-')}-{scheme}"
    return act(ground, SERVERS[scheme](folder))


def _of(act: Act, scheme: str) -> Scenario:
    known = Scenario(act=partial(_in_store, act, scheme), **described(act))
    return replace(known, name=f"{known.name}@{scheme}", part=PART)


SCENARIOS = [
    _of(act, scheme)
    for act in (calm, killed, store_killed, errors, condition_ignored, two_scorers)
    for scheme in SERVERS
]
