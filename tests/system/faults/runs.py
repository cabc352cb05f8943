"""Faults of one run each; they do not touch the others and are made at the same time."""

import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.model_server import Wrong
from tests.support.relay import Asked
from tests.system.faults.fault import fault
from tests.system.faults.platform_under_watch import Platform
from tests.system.faults.steps import ended, finish, judged, prepare, score, slow_run, whole, within
from tools.loopback import free_ports


@fault("ImagebatchNoSuccess")
def no_success(platform: Platform, name: str) -> Iterator[float]:
    """A pipeline succeeds once, and nothing runs any more."""
    whole(platform, name, limit=8)
    yield time.time()
    whole(platform, name, number=2, limit=8)
    yield time.time()


@fault("ImagebatchDidNotStart")
def never_started(platform: Platform, name: str) -> Iterator[float]:
    """A run says when the next one is due, and that one does not come."""
    due = datetime.now(UTC) + timedelta(seconds=12)
    whole(platform, name, f"--next-run={due.isoformat()}", limit=8)
    yield due.timestamp()
    whole(platform, name, f"--next-run={(due + timedelta(days=1)).isoformat()}", number=2, limit=8)
    yield time.time()


@fault("ImagebatchRanShort")
def ran_short(platform: Platform, name: str) -> Iterator[float]:
    """After a run of 100 images comes one of 20: the rest was not uploaded."""
    whole(platform, name, limit=100)
    time.sleep(15)  # the usual size must be the usual one for longer than the other lasts
    prepare(platform, name, number=2, limit=20)
    yield time.time()
    whole(platform, name, number=3, limit=100)
    yield time.time()


@fault("ImagebatchWillMissDeadline")
def forecast(platform: Platform, name: str) -> Iterator[float]:
    """A run becomes so slow that it cannot be done in time: told before the deadline, not after."""
    due = time.time() + 90
    with slow_run(platform, name, 1, within(90), limit=600) as run:
        yield time.time()
        assert time.time() < due, "told after the deadline"
        run.slowness.seconds = 0
        yield time.time()
        ended(run.scoring)
        finish(platform, name)
        assert time.time() < due, "the repaired run was late all the same"


@fault("ImagebatchMissedDeadline")
def late(platform: Platform, name: str) -> Iterator[float]:
    """A run is still at work when its deadline passes."""
    due = time.time() + 12
    with slow_run(platform, name, 1, within(12), limit=100) as run:
        yield due
        ended(run.scoring)
        finish(platform, name)
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
    prepare(platform, name, folder=_spoilt(platform, name), limit=100)
    begun = time.time()
    score(platform, name)
    finish(platform, name)
    yield begun
    whole(platform, name, number=2, limit=100)
    yield time.time()


@fault("ImagebatchAccuracyFell")
def model_wrong(platform: Platform, name: str) -> Iterator[float]:
    """People say of most of a random sample that the model is wrong; then they look again, and it is not."""
    whole(platform, name)
    judged(platform, name, number=1, right=1.0)
    whole(platform, name, number=2)
    judged(platform, name, number=2, right=0.3)
    yield time.time()
    judged(platform, name, number=2, right=1.0)
    yield time.time()


@fault("ImagebatchRunRefused")
def refused(platform: Platform, name: str) -> Iterator[float]:
    """More images fail than the run tolerates: scoring ends with 65."""
    prepare(platform, name, "--max-failures", 5, folder=_spoilt(platform, name), limit=100)
    score(platform, name, codes=(65,))
    yield time.time()
    whole(platform, name, number=2, limit=100)
    yield time.time()


@fault("ImagebatchStageFailing")
def unreachable(platform: Platform, name: str) -> Iterator[float]:
    """The model server's address is wrong: scoring ends with 69, and nothing tries it again."""
    prepare(platform, name)
    (nobody,) = free_ports(1)
    score(platform, name, f"--api-url=http://127.0.0.1:{nobody}", "--retry-seconds", 1, codes=(69,))
    yield time.time()
    score(platform, name)
    yield time.time()
    finish(platform, name)


@fault("ImagebatchStageSilent")
def killed(platform: Platform, name: str) -> Iterator[float]:
    """Scoring is killed (SIGKILL), and nothing tries it again."""
    with slow_run(platform, name, 1, limit=60) as run:
        run.wait_until_under_way()
        run.scoring.signal(signal.SIGKILL)
        yield time.time()
    score(platform, name)
    yield time.time()
    finish(platform, name)


@fault("ImagebatchDiskLow")
def disk_full(platform: Platform, name: str) -> Iterator[float]:
    """The disk of the runs is filled to 5 % while a run is at work."""
    disk = platform.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=True)
    try:
        with slow_run(platform, name, 0.7, limit=200, runs_uri=disk / "runs") as run:
            (disk / "somebody-else").write_bytes(bytes(61 * 2**20))
            yield time.time()
            (disk / "somebody-else").unlink()
            yield time.time()
            run.scoring.kill()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@fault("ImagebatchRetriesHigh")
def unreliable(platform: Platform, name: str) -> Iterator[float]:
    """Every third request finds the connection reset."""
    spoilt = True

    def before(asked: Asked) -> Wrong | None:
        return Wrong(reset=True) if spoilt and asked.number > 4 and asked.number % 3 == 0 else None

    with slow_run(platform, name, 0.4, limit=400, pace=(4, 2), before=before) as run:
        yield time.time()
        spoilt = False
        yield time.time()
        run.scoring.kill()


@fault("ImagebatchWaitsHigh")
def told_to_wait(platform: Platform, name: str) -> Iterator[float]:
    """A proxy sends one request in eight away for three seconds."""
    spoilt = True

    def before(asked: Asked) -> Wrong | None:
        if spoilt and asked.number > 4 and asked.number % 8 == 0:
            return Wrong(503, b"", {"Retry-After": "3"})
        return None

    with slow_run(platform, name, 0.4, limit=600, pace=(1, 6), before=before) as run:
        yield time.time()
        spoilt = False
        yield time.time()
        run.scoring.kill()
