"""What faults are made of: the stages of a run, each waited for, and runs that take their time."""

import contextlib
import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.children import Child, last_line
from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.system.faults.platform_under_watch import Platform


def ended(child: Child, codes: tuple[int, ...] = (0,)) -> None:
    """Wait for a stage, and for the exit code that it must have."""
    code = child.wait()
    if code not in codes:
        raise AssertionError(f"exit code {code}, not {codes}: {last_line(child.err)}")


def prepare(
    platform: Platform,
    name: str,
    *flags: object,
    number: int = 1,
    folder: Path | None = None,
    limit: int = 60,
    **settings: object,
) -> None:
    """Preprocess run `number` of a pipeline: its first photographs."""
    source = ["--input", folder or platform.photographs, "--limit", limit, "--max-failures", "60%"]
    ended(platform.stage(name, "preprocess", "--run-id", f"{name}-{number}", *source, *flags, **settings))


def score(platform: Platform, name: str, *flags: object, codes: tuple[int, ...] = (0,)) -> None:
    """Score a pipeline's first run to its end."""
    ended(platform.stage(name, "score", "--run-id", f"{name}-1", *flags), codes)


def finish(platform: Platform, name: str) -> None:
    """Write the certificate of a pipeline's first run."""
    ended(platform.stage(name, "postprocess", "--run-id", f"{name}-1"))


def whole(platform: Platform, name: str, *flags: object, number: int = 1, limit: int = 60) -> None:
    """Make a run from its beginning to its certificate."""
    prepare(platform, name, *flags, number=number, limit=limit)
    for stage in ("score", "postprocess"):
        ended(platform.stage(name, stage, "--run-id", f"{name}-{number}"))


def judged(platform: Platform, name: str, *, number: int, right: float) -> None:
    """Hand a random sample of 40 out, and read back that people agree with this share of it."""
    run = ("--run-id", f"{name}-{number}")
    queue = platform.folder / f"{name}-{number}-{right:.0%}"
    out = ("--no-queue", "--sample", 40, "--format", "csv", "--out", queue)
    ended(platform.stage(name, "report", *run))
    ended(platform.stage(name, "review", "export", *run, *out))
    table = queue / "queue.csv"
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = json.loads((platform.folder / "runs" / f"{name}-{number}" / "run.json").read_bytes())["model"][
        "labels"
    ]
    for at, row in enumerate(rows):
        wrong = next(label for label in labels if label != row["predicted"])
        row["label"] = row["predicted"] if at < right * len(rows) else wrong
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    ended(platform.stage(name, "labels", "import", *run, "--format", "csv", "--file", table))


class Slowness:
    """A relay's pause before each reply, in seconds, that can be taken away."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, _: Asked, reply: Wrong) -> Wrong:
        time.sleep(self.seconds)
        return reply


@dataclass(frozen=True)
class SlowRun:
    """A run that is being scored through a relay."""

    scoring: Child
    relay: Relay
    slowness: Slowness

    def wait_until_under_way(self) -> None:
        """Wait until it has asked a few times."""
        while self.relay.requests < 4:
            assert self.scoring.running, f"scoring has ended: {last_line(self.scoring.err)}"
            time.sleep(0.1)


@contextlib.contextmanager
def slow_run(
    platform: Platform,
    name: str,
    pause: float,
    *flags: object,
    limit: int,
    pace: tuple[int, int] = (4, 1),
    before: Callable[[Asked], Wrong | None] = lambda _: None,
    **settings: object,
) -> Iterator[SlowRun]:
    """Preprocess a pipeline's first run and begin to score it, slowly.

    Args:
        platform: that it runs on.
        name: of the pipeline.
        pause: before each of the server's replies, in seconds.
        *flags: of `score`.
        limit: images.
        pace: images per request, requests in flight.
        before: what the relay says in place of the server.
        **settings: of both stages.
    """
    slowness = Slowness(pause)
    with Relay(platform.server.inference, before=before, after=slowness) as relay:
        prepare(platform, name, limit=limit, **settings)
        held = ["--pack-size", pace[0], "--in-flight", pace[1]]
        scoring = platform.stage(
            name, "score", "--run-id", f"{name}-1", *held, *flags, **{**settings, "api_url": relay.url}
        )
        yield SlowRun(scoring, relay, slowness)


def within(seconds: float) -> str:
    """A deadline, as a flag."""
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    return f"--deadline={when.isoformat()}"
