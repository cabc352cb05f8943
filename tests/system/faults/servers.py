"""Faults of what all runs share: made one after the other."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

from tests.system.faults.fault import fault
from tests.system.faults.platform_under_watch import Platform
from tests.system.faults.steps import ended, finish, prepare, slow_run

_HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}


@fault("ImagebatchScoringStalled")
def frozen(platform: Platform, name: str) -> Iterator[float]:
    """The server's workers are frozen (SIGSTOP) while a run is at work."""
    workers = [int(worker["pid"]) for worker in platform.server.workers()]
    with slow_run(platform, name, 0.3, limit=100) as run:
        run.wait_until_under_way()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield time.time()
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        yield time.time()
        ended(run.scoring)
        finish(platform, name)


# On a busy machine the crowd leaves no place at all for a while, and that nothing is scored is true, too: the
# pauses of a client that is sent away, up to 10 s, are not in a hurry, as the rules are here.
@fault("ImagebatchQueueFull", also=("ImagebatchScoringStalled",))
def starved(platform: Platform, name: str) -> Iterator[float]:
    """Another client keeps the server's queue full."""
    prepare(platform, name, limit=600)
    stop = threading.Event()
    crowd = [threading.Thread(target=_ask_on_and_on, args=(platform, stop), daemon=True) for _ in range(14)]
    for each in crowd:
        each.start()
    scoring = platform.stage(name, "score", "--run-id", f"{name}-1", "--pack-size", 4, "--in-flight", 4)
    begun = time.time()
    try:
        yield begun
    finally:
        stop.set()
    yield time.time()
    scoring.kill()
    for each in crowd:
        each.join(10)


def _ask_on_and_on(platform: Platform, stop: threading.Event) -> None:
    key = json.loads(platform.server.key_file.read_text())["inference"]["key"]
    images = [path.read_bytes() for path in sorted(platform.photographs.iterdir())[:24]]
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%d"; filename="%d"\r\n\r\n%s\r\n'
        % (number, number, data)
        for number, data in enumerate(images)
    ]
    body = b"".join(parts) + b"--b--\r\n"
    address = platform.server.inference.removeprefix("http://")
    while not stop.is_set():
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(address, timeout=60)
            headers = {**_HEADERS, "Authorization": f"Bearer {key}"}
            connection.request("POST", "/predictions/solar-cells", body, headers)
            status = connection.getresponse().status
            connection.close()
            if status != http.client.OK:
                time.sleep(0.02)


@fault("ImagebatchWorkerDeaths", subject="torchserve")
def workers_killed(platform: Platform, name: str) -> Iterator[float]:
    """The server's workers are killed (SIGKILL), again and again."""
    assert name
    begun = time.time()
    for _ in range(2):
        for worker in platform.server.workers():
            os.kill(int(worker["pid"]), signal.SIGKILL)
        time.sleep(1)
        platform.server.wait_until_ready()
    yield begun
    yield time.time()


@fault("ImagebatchModelServerDown", subject="torchserve")
def server_killed(platform: Platform, name: str) -> Iterator[float]:
    """TorchServe and its workers are killed (SIGKILL) while a run is at work, and started again."""
    with slow_run(platform, name, 0.3, limit=100) as run:
        run.wait_until_under_way()
        platform.server.kill()
        yield time.time()
        platform.server.start()
        platform.server.wait_until_ready()
        yield time.time()
        ended(run.scoring)
        finish(platform, name)


@fault("ImagebatchPushgatewayDown", subject="pushgateway")
def gateway_killed(platform: Platform, name: str) -> Iterator[float]:
    """The Pushgateway is stopped while a run is at work; the run must not notice."""
    with slow_run(platform, name, 0.3, limit=400) as run:
        run.wait_until_under_way()
        platform.pushgateway.signal(signal.SIGTERM)
        platform.pushgateway.wait()
        yield time.time()
        platform.start_pushgateway()
        yield time.time()
        ended(run.scoring)
        assert run.scoring.err.count("metrics are not pushed") == 1
        finish(platform, name)
