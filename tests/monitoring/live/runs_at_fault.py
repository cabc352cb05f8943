"""Faults of one run each; they do not touch the others and are made at the same time."""

import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from children import Child, last_line
from fault import fault
from loopback import free_ports
from model_server import Wrong
from platform_under_watch import Platform
from relay import Asked, Relay


def score(platform: Platform, pipeline: str, run: str, *flags: object, codes: tuple[int, ...] = (0,)) -> None:
    """Score a run to its end."""
    ended(platform.stage(pipeline, "score", "--run-id", run, *flags), codes)


def ended(child: Child, codes: tuple[int, ...] = (0,)) -> None:
    """Wait for a stage, and for the exit code that it must have."""
    code = child.wait()
    if code not in codes:
        raise AssertionError(f"exit code {code}, not {codes}: {last_line(child.err)}")


def prepare(
    platform: Platform, pipeline: str, run: str, *flags: object, folder: Path | None = None, limit: int = 60
) -> None:
    """Preprocess a run of the first photographs."""
    source = ["--input", folder or platform.photographs, "--limit", limit, "--max-failures", "60%"]
    ended(platform.stage(pipeline, "preprocess", "--run-id", run, *source, *flags))


def whole(platform: Platform, pipeline: str, run: str, *flags: object, limit: int = 60) -> None:
    """Make a run from its beginning to its certificate."""
    prepare(platform, pipeline, run, *flags, limit=limit)
    score(platform, pipeline, run)
    finish(platform, pipeline, run)


def finish(platform: Platform, pipeline: str, run: str) -> None:
    """Write the certificate."""
    ended(platform.stage(pipeline, "postprocess", "--run-id", run))


def under_way(scoring: Child, relay: Relay) -> None:
    """Wait until a stage has asked a few times."""
    while relay.requests < 4:
        assert scoring.running, f"scoring has ended: {last_line(scoring.err)}"
        time.sleep(0.1)


def within(seconds: float) -> str:
    """A deadline, as a flag."""
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    return f"--deadline={when.isoformat()}"


class Slowness:
    """A relay's pause before each reply, in seconds, that can be taken away."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, _: Asked, reply: Wrong) -> Wrong:
        time.sleep(self.seconds)
        return reply


@fault("ImagebatchNoSuccess")
def no_success(platform: Platform, name: str) -> Iterator[float]:
    """A pipeline succeeds once, and nothing runs any more."""
    whole(platform, name, f"{name}-1", limit=8)
    yield time.time()
    whole(platform, name, f"{name}-2", limit=8)
    yield time.time()


@fault("ImagebatchDidNotStart")
def never_started(platform: Platform, name: str) -> Iterator[float]:
    """A run says when the next one is due, and that one does not come."""
    due = datetime.now(UTC) + timedelta(seconds=12)
    whole(platform, name, f"{name}-1", f"--next-run={due.isoformat()}", limit=8)
    yield due.timestamp()
    whole(platform, name, f"{name}-2", f"--next-run={(due + timedelta(days=1)).isoformat()}", limit=8)
    yield time.time()


@fault("ImagebatchRanShort")
def ran_short(platform: Platform, name: str) -> Iterator[float]:
    """After a run of 100 images comes one of 20: the rest was not uploaded."""
    whole(platform, name, f"{name}-1", limit=100)
    time.sleep(15)  # the usual size must be the usual one for longer than the other lasts
    prepare(platform, name, f"{name}-2", limit=20)
    yield time.time()
    whole(platform, name, f"{name}-3", limit=100)
    yield time.time()


@fault("ImagebatchWillMissDeadline")
def forecast(platform: Platform, name: str) -> Iterator[float]:
    """A run becomes so slow that it cannot be done in time: told before the deadline, not after."""
    slowness = Slowness(0)
    with Relay(platform.server.inference, after=slowness) as relay:
        prepare(platform, name, f"{name}-1", limit=600)
        slowness.seconds = 1
        due = time.time() + 90
        flags = [within(90), "--pack-size", 4, "--in-flight", 1]
        scoring = platform.stage(name, "score", "--run-id", f"{name}-1", *flags, api_url=relay.url)
        yield time.time()
        assert time.time() < due, "told after the deadline"
        slowness.seconds = 0
        yield time.time()
        ended(scoring)
        finish(platform, name, f"{name}-1")
        assert time.time() < due, "the repaired run was late all the same"


@fault("ImagebatchMissedDeadline")
def late(platform: Platform, name: str) -> Iterator[float]:
    """A run is still at work when its deadline passes."""
    with Relay(platform.server.inference, after=Slowness(1)) as relay:
        prepare(platform, name, f"{name}-1", limit=100)
        due = time.time() + 8
        flags = [within(8), "--pack-size", 4, "--in-flight", 1]
        scoring = platform.stage(name, "score", "--run-id", f"{name}-1", *flags, api_url=relay.url)
        yield due
        ended(scoring)
        finish(platform, name, f"{name}-1")
        yield time.time()


def _spoilt(platform: Platform, name: str) -> Path:
    """A folder of 100 images, one in five cut off in the middle."""
    folder = platform.folder / name
    folder.mkdir()
    for number, path in enumerate(sorted(platform.photographs.iterdir())[:100]):
        data = path.read_bytes()
        (folder / path.name).write_bytes(data if number % 5 else data[: len(data) // 2])
    return folder


@fault("ImagebatchFailedShareHigh")
def bad_images(platform: Platform, name: str) -> Iterator[float]:
    """One image in five is cut off in the middle."""
    prepare(platform, name, f"{name}-1", folder=_spoilt(platform, name), limit=100)
    begun = time.time()
    score(platform, name, f"{name}-1")
    finish(platform, name, f"{name}-1")
    yield begun
    whole(platform, name, f"{name}-2", limit=100)
    yield time.time()


@fault("ImagebatchRunRefused")
def refused(platform: Platform, name: str) -> Iterator[float]:
    """More images fail than the run tolerates: scoring ends with 65."""
    folder = _spoilt(platform, name)
    prepare(platform, name, f"{name}-1", "--max-failures", 5, folder=folder, limit=100)
    score(platform, name, f"{name}-1", codes=(65,))
    yield time.time()
    whole(platform, name, f"{name}-2", limit=100)
    yield time.time()


@fault("ImagebatchStageFailing")
def unreachable(platform: Platform, name: str) -> Iterator[float]:
    """The model server's address is wrong: scoring ends with 69, and nothing tries it again."""
    prepare(platform, name, f"{name}-1")
    (nobody,) = free_ports(1)
    dead = f"--api-url=http://127.0.0.1:{nobody}"
    score(platform, name, f"{name}-1", dead, "--retry-seconds", 1, codes=(69,))
    yield time.time()
    score(platform, name, f"{name}-1")
    yield time.time()
    finish(platform, name, f"{name}-1")


@fault("ImagebatchStageSilent")
def killed(platform: Platform, name: str) -> Iterator[float]:
    """Scoring is killed (SIGKILL), and nothing tries it again."""
    with Relay(platform.server.inference, after=Slowness(1)) as relay:
        prepare(platform, name, f"{name}-1")
        flags = ["--pack-size", 4, "--in-flight", 1]
        scoring = platform.stage(name, "score", "--run-id", f"{name}-1", *flags, api_url=relay.url)
        under_way(scoring, relay)
        scoring.signal(signal.SIGKILL)
        yield time.time()
    score(platform, name, f"{name}-1")
    yield time.time()
    finish(platform, name, f"{name}-1")


@fault("ImagebatchDiskLow")
def disk_full(platform: Platform, name: str) -> Iterator[float]:
    """The disk of the runs is filled to 5 % while a run is at work."""
    disk = platform.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=True)
    try:
        with Relay(platform.server.inference, after=Slowness(0.7)) as relay:
            runs = {"runs_uri": disk / "runs"}
            source = ["--input", platform.photographs, "--limit", 200]
            ended(platform.stage(name, "preprocess", "--run-id", name, *source, **runs))
            flags = ["--pack-size", 4, "--in-flight", 1]
            scoring = platform.stage(
                name, "score", "--run-id", name, *flags, api_url=relay.url, runs_uri=disk / "runs"
            )
            (disk / "somebody-else").write_bytes(bytes(61 * 2**20))
            yield time.time()
            (disk / "somebody-else").unlink()
            yield time.time()
            scoring.kill()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@fault("ImagebatchRetriesHigh")
def unreliable(platform: Platform, name: str) -> Iterator[float]:
    """Every third request finds the connection reset."""
    spoilt = True

    def before(asked: Asked) -> Wrong | None:
        return Wrong(reset=True) if spoilt and asked.number > 4 and asked.number % 3 == 0 else None

    with Relay(platform.server.inference, before=before, after=Slowness(0.4)) as relay:
        prepare(platform, name, f"{name}-1", limit=400)
        flags = ["--pack-size", 4, "--in-flight", 2]
        scoring = platform.stage(name, "score", "--run-id", f"{name}-1", *flags, api_url=relay.url)
        yield time.time()
        spoilt = False
        yield time.time()
        scoring.kill()


@fault("ImagebatchWaitsHigh")
def told_to_wait(platform: Platform, name: str) -> Iterator[float]:
    """A proxy sends one request in eight away for three seconds."""
    spoilt = True

    def before(asked: Asked) -> Wrong | None:
        if spoilt and asked.number > 4 and asked.number % 8 == 0:
            return Wrong(503, b"", {"Retry-After": "3"})
        return None

    with Relay(platform.server.inference, before=before, after=Slowness(0.4)) as relay:
        prepare(platform, name, f"{name}-1", limit=600)
        flags = ["--pack-size", 1, "--in-flight", 6]
        scoring = platform.stage(name, "score", "--run-id", f"{name}-1", *flags, api_url=relay.url)
        yield time.time()
        spoilt = False
        yield time.time()
        scoring.kill()
