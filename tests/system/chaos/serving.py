"""TorchServe itself: killed, its workers killed, its model replaced, its keys expired."""

import os
import shutil
import signal
import threading
import time

from tests.support.children import Child, last_line
from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.system.chaos import archives
from tests.system.chaos.ground import POISONABLE, Ground, scenario
from tests.system.chaos.runs import Result, as_model
from tests.system.kit.verdict import require

_KEY_SECONDS = 20.0
_REFUSED = Wrong(
    400, b'{"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}'
)


@scenario
def torchserve_killed(ground: Ground) -> Result:
    """TorchServe and its workers are killed (SIGKILL) in the middle of the run, and started 3 s later."""
    with Relay(ground.server.inference) as relay:
        run = ground.prepared("torchserve-killed", api_url=relay.url)
        scoring = run.start_score()
        wait_for_requests(relay, 8, scoring)
        ground.server.kill()
        time.sleep(3)
        ground.server.start()
        run.end(scoring)
    ground.server.wait_until_ready()
    return run.settle("new keys, new workers")


@scenario
def worker_killed(ground: Ground) -> Result:
    """Each of the two workers is killed (SIGKILL) once, while requests are under way."""
    with Relay(ground.server.inference) as relay:
        run = ground.prepared("worker-killed", api_url=relay.url)
        scoring = run.start_score()
        for worker in ground.server.workers():
            wait_for_requests(relay, relay.requests + 8, scoring)
            os.kill(int(worker["pid"]), signal.SIGKILL)
        run.end(scoring)
    ground.server.wait_until_ready()
    return run.settle("both answered again")


@scenario
def poison_image(ground: Ground) -> Result:
    """One image makes every worker that is asked about it exit: it alone must be quarantined, with its
    history."""
    folder = ground.folder / "with-poison"
    shutil.copytree(ground.photographs, folder)
    poison = f"{ground.ids[len(ground.ids) // 2].removesuffix('.png')}-poison.png"
    (folder / poison).write_bytes((folder / ground.ids[7]).read_bytes() + archives.MARK)
    ground.server.register("poisonable.mar")
    try:
        ground.server.wait_until_ready(POISONABLE)
        run = ground.run("poison-image")
        run.listed = sorted([*ground.ids, poison])
        run.expected = as_model(ground.calm_csv, POISONABLE, ground.digest_of(POISONABLE))
        run.preprocess("--input", str(folder), "--model-version", POISONABLE)
        run.score()
    finally:
        ground.server.unregister(POISONABLE)
    row = run.settle("", failed=(poison,))
    reason = next(
        line for line in run.files.read("output/failures.csv").decode().splitlines() if poison in line
    )
    require(",quarantined," in reason and "alone in" in reason, f"no history of the poison: {reason}")
    return Result(row.images, row.lost, row.doubled, row.extra_seconds, "1 image quarantined")


@scenario
def model_replaced(ground: Ground) -> Result:
    """Another archive takes the model's name and version in the middle of the run: it must stop with 78, and
    go on when the first archive is back."""
    held = threading.Event()

    def before(asked: Asked) -> None:
        if asked.number > 8:
            held.wait(240)

    with Relay(ground.server.inference, before=before) as relay:
        run = ground.prepared("model-replaced", api_url=relay.url)
        # TorchServe never answers a request that a worker has in hand when its model is unregistered.
        scoring = run.start_score("--request-timeout", "15")
        wait_for_requests(relay, 9, scoring)
        try:
            _replace(ground, "replacement.mar")
            held.set()
            run.end(scoring, codes=(78,))
            require("the run was started with" in scoring.err, f"another reason: {last_line(scoring.err)}")
            run.score(codes=(78,))
        finally:
            _replace(ground, "solar-cells.mar")
        run.score()
        return run.settle("stopped with 78, twice, then finished")


@scenario
def version_added(ground: Ground) -> Result:
    """A new version of the model is registered in the middle of the run and made the default."""
    with Relay(ground.server.inference) as relay:
        run = ground.prepared("version-added", api_url=relay.url)
        scoring = run.start_score("--in-flight", "1", "--pack-size", "1")
        wait_for_requests(relay, 8, scoring)
        try:
            ground.server.register("poisonable.mar")
            ground.server.manage("PUT", f"/models/solar-cells/{POISONABLE}/set-default")
            require(scoring.running, "the run was over before the new version was there")
            run.end(scoring)
        finally:
            ground.server.manage("PUT", "/models/solar-cells/1.0/set-default")
            ground.server.unregister(POISONABLE)
        return run.settle("the run stayed with its version")


@scenario
def keys_expire(ground: Ground) -> Result:
    """Every key is refused 20 s after its first use, as TorchServe refuses an expired one; the run is slowed
    to last longer than two keys."""
    lock = threading.Lock()
    first_use: dict[str, float] = {}
    refused = 0

    def before(asked: Asked) -> Wrong | None:
        nonlocal refused
        key = asked.headers.get("Authorization", "")
        with lock:
            expired = time.monotonic() > first_use.setdefault(key, time.monotonic()) + _KEY_SECONDS
            refused += expired
        return _REFUSED if expired else None

    def after(_: Asked, reply: Wrong) -> Wrong:
        reply.pause = 4.5
        return reply

    with Relay(ground.server.inference, before=before, after=after) as relay:
        run = ground.prepared("keys-expire", api_url=relay.url)
        run.score("--in-flight", "4")
        require(len(first_use) > 2, f"only {len(first_use)} keys were used in {run.score_seconds:.0f} s")
        return run.settle(f"{len(first_use)} keys used, {refused} requests refused")


def wait_for_requests(relay: Relay, count: int, scoring: Child) -> None:
    """Wait until a run has made so many requests, and require that it still goes on."""
    while relay.requests < count:
        require(scoring.running, f"the run was over after {relay.requests} requests")
        time.sleep(0.01)


def _replace(ground: Ground, archive: str) -> None:
    ground.server.unregister("1.0")
    ground.server.register(archive)
