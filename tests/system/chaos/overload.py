"""A server that is slow, full, or asks to come back later."""

import threading
import time

from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.system.chaos.ground import Ground, scenario
from tests.system.chaos.runs import Result
from tests.system.chaos.torchserve import TorchServe
from tests.system.kit.verdict import require

_BUSY = Wrong(503, b'{"code": 503, "type": "ServiceUnavailableException", "message": "no worker is free"}')


@scenario
def slow_server(ground: Ground) -> Result:
    """Every reply takes ten times as long as the server needed for it."""
    begun: dict[int, float] = {}

    def before(asked: Asked) -> None:
        begun[asked.number] = time.monotonic()

    def after(asked: Asked, reply: Wrong) -> Wrong:
        reply.pause = 9 * (time.monotonic() - begun[asked.number])
        return reply

    with Relay(ground.server.inference, before=before, after=after) as relay:
        run = ground.prepared("slow-server", api_url=relay.url)
        run.score()
        return run.settle(f"{relay.requests} requests")


@scenario
def storm_of_503(ground: Ground) -> Result:
    """In the middle of the run every request is answered by 503, for 60 s."""
    lock = threading.Lock()
    until = refused = 0.0

    def before(asked: Asked) -> Wrong | None:
        nonlocal until, refused
        with lock:
            if asked.number > 10 and not until:
                until = time.monotonic() + ground.storm_seconds
            if time.monotonic() >= until:
                return None
            refused += 1
        return _BUSY

    with Relay(ground.server.inference, before=before) as relay:
        run = ground.prepared("storm-of-503", api_url=relay.url)
        run.score()
        require(run.score_seconds > ground.storm_seconds, "the run was over before the storm")
        return run.settle(f"{refused:.0f} requests refused in {ground.storm_seconds:.0f} s")


@scenario
def queue_of_one(ground: Ground) -> Result:
    """TorchServe has a queue of one request (`job_queue_size=1`), and the scorer may have 16 in flight."""
    server = TorchServe(ground.folder / "small-queue", ground.store, job_queue_size=1)
    try:
        server.wait_until_ready()
        refused = 0

        def after(_: Asked, reply: Wrong) -> Wrong:
            nonlocal refused
            refused += reply.status == 503
            return reply

        with Relay(server.inference, after=after) as relay:
            run = ground.prepared("queue-of-one", api_url=relay.url, server=server)
            run.score("--in-flight", "16", "--pack-size", "2")
            require(refused, "the queue was never full")
            return run.settle(f"{refused} of {relay.requests} requests refused by TorchServe")
    finally:
        server.kill()
