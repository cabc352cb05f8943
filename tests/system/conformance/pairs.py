"""Two real servers of one model behind one `--api-url`, and two of different models."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.support.relay import Asked, Relay
from tests.system.conformance.ground import Contestant, Ground
from tests.system.conformance.servers import MODEL, Server
from tests.system.kit.verdict import Seen, require

_LONG = 240.0  # seconds after which a server is not expected back any more


_REST = "over REST alone"  # the relays speak HTTP


class _Killing:
    """Kills the second of two servers in the middle of a run, and holds the first until it is seen again.

    Args:
        ground: Its `said` is the run's log.
        second: The server to kill.
    """

    def __init__(self, ground: Ground, second: Server) -> None:
        self._ground = ground
        self._second = second
        self._killed = threading.Event()
        self._back = threading.Event()
        self._ended = threading.Event()
        self._packs = threading.Semaphore(0)
        self.before = self.after = 0

    def first_asked(self, _: Asked) -> None:
        """Hold what the first server is asked while the second one is away."""
        if self._killed.is_set():
            self._back.wait(_LONG)

    def second_asked(self, asked: Asked) -> None:
        """Count what the second server is asked about the run's images."""
        if asked.method == "POST":
            self.after += self._back.is_set()
            self.before += not self._killed.is_set()
            self._packs.release()

    def run(self, begin: int) -> None:
        """Wait for the first packs beyond those that pin the model; kill, start, wait for the log's word."""
        for _ in range(begin):
            while not self._packs.acquire(timeout=0.1):
                if self._ended.is_set():  # too few of the run's packs came here: `after` says so
                    return
        self._second.kill()
        self._killed.set()
        try:
            self._second.start()
            while "endpoint answers again" not in self._ground.said.getvalue():
                if self._ended.wait(0.01):
                    return
        finally:
            self._back.set()

    def end(self) -> None:
        """The run is over."""
        self._ended.set()


def endpoint_killed(ground: Ground, contestant: Contestant) -> Seen:
    """Of two endpoints one is killed in the middle of a run: nothing waits, no row differs, and it gets
    requests again when it is back."""
    if contestant.grpc:
        return Seen(_REST)
    first, second = (
        ground.server(contestant.server),
        ground.another(contestant.server, of_another_model=False),
    )
    killing = _Killing(ground, second)
    try:
        with (
            Relay(first.url, before=killing.first_asked) as one,
            Relay(second.url, before=killing.second_asked) as other,
            ThreadPoolExecutor(1) as thread,
        ):
            disturbed = thread.submit(killing.run, 40)
            try:
                urls = f"{one.url},{other.url}"
                rows = ground.run(contestant, "endpoints", api_url=urls, in_flight=4, pack_size=2)
            finally:
                killing.end()
            disturbed.result()
    finally:
        second.kill()
    ground.require_same(rows)
    folder = ground.runs / contestant.run_id("endpoints")
    counted = [json.loads(file.read_text()) for file in folder.glob("telemetry/*.json")]
    outages = sum(one.get("outages", 0) for one in counted)
    require(not outages, f"the run waited {outages:.0f} times, although one endpoint was there")
    require(killing.after, "the endpoint got no request after it was back")
    answered = json.loads((folder / "output/certificate.json").read_text())["endpoints"]
    require(sum(answered.values()) >= len(rows), f"{answered} do not account for {len(rows)} rows")
    shares = " and ".join(str(answered.get(relay.url, 0)) for relay in (one, other))
    return Seen(f"same rows, no wait, {shares} images")


def two_models(ground: Ground, contestant: Contestant) -> Seen:
    """Two endpoints of different models are refused with code 78 before the first image."""
    if contestant.grpc:
        return Seen(_REST)
    first = ground.server(contestant.server)
    second = ground.another(contestant.server, of_another_model=True)
    try:
        settings = ground.settings(contestant) | {"api_url": f"{first.url},{second.url}"}
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
        where = [f"--run-id={contestant.run_id('two-models')}", f"--runs-uri={ground.runs}"]
        listing = [f"--input={ground.images}", f"--model={MODEL}", f"--backend={contestant.backend}"]
        said = ground.call("preprocess", *where, *listing, *flags, code=78)
    finally:
        second.kill()
    require("do not serve one model" in said, f"refused otherwise: {said[-300:]}")
    return Seen("code 78")
