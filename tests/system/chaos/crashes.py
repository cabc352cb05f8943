"""The scorer itself: killed, stopped, with a clock that jumps."""

import random
import re
import signal
import time

from tests.support.model_server import Wrong
from tests.support.relay import After, Asked, Relay
from tests.system.chaos.ground import Ground, scenario
from tests.system.chaos.runs import Folder, Result
from tests.system.kit.verdict import RefutedError, require
from tools.paths import ROOT

_KILLS = 20
_FAKETIME = ROOT / "pipeline_image/.venv/lib/python3.11/site-packages/libfaketime/vendor"


def _paused(seconds: float) -> After:
    """Makes every reply late, so that a run lasts long enough to be met in its middle."""

    def after(_: Asked, reply: Wrong) -> Wrong:
        reply.pause = seconds
        return reply

    return after


@scenario
def scorer_killed(ground: Ground) -> Result:
    """The scorer is killed (SIGKILL) at 20 random moments, and started again each time."""
    moments = random.Random(20)
    runs = killed = in_requests = 0
    extra = 0.0
    while killed < _KILLS:
        runs += 1
        with Relay(ground.server.inference, after=_paused(0.2)) as relay:
            run = ground.prepared(f"scorer-killed-{runs}", api_url=relay.url)
            for _ in range(_KILLS - killed):
                before = relay.requests
                scoring = run.start_score()
                time.sleep(moments.uniform(0.2, 3.0))
                if not scoring.running:
                    break
                scoring.kill()
                killed += 1
                in_requests += relay.requests > before
            run.score()
            extra += run.settle("").extra_seconds
    seen = f"{killed} kills, {in_requests} of them after the first request, in {runs} runs"
    return Result(len(ground.ids) * runs, 0, 0, extra, seen)


@scenario
def two_scorers(ground: Ground) -> Result:
    """Two scorers are started at the same moment on a run: one finishes, the other ends with 75."""
    run = ground.prepared("two-scorers")
    both = [run.start_score(), run.start_score()]
    codes = sorted(run.end(one, codes=(0, 75)) for one in both)
    require(0 in codes, f"neither finished: {codes}")
    return run.settle(f"exit codes {codes[0]} and {codes[1]}")


@scenario
def stopped_scorer(ground: Ground) -> Result:
    """A scorer is stopped (SIGSTOP) in the middle of a shard and wakes after its successor has finished: it
    must end with 75 and change nothing."""
    with Relay(ground.server.inference) as relay:
        run = ground.prepared("stopped-scorer", api_url=relay.url)
        first = run.start_score()
        while relay.requests < 9:
            require(first.running, "the scorer ended before it was stopped")
            time.sleep(0.01)
        first.signal(signal.SIGSTOP)
        run.score()
        result = run.settle("")
        before = _snapshot(run.files)
        first.signal(signal.SIGCONT)
        run.end(first, codes=(75,))
    after = _snapshot(run.files)
    changed = [path for path in before if before[path] != after.get(path)]
    require(not changed, f"the woken scorer changed {changed}")
    run.end(run.start("verify"))
    return Result(result.images, 0, 0, result.extra_seconds, "the woken one ended with 75")


@scenario
def clock_moved_back(ground: Ground) -> Result:
    """The scorer's clock jumps back an hour in the middle of the run (libfaketime)."""
    library = next(_FAKETIME.rglob("libfaketime.so.1"), None)
    if library is None:
        raise RefutedError("libfaketime is not in the environment of pipeline_image/: run `make setup`")
    clock = ground.folder / "clock"
    clock.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    with Relay(ground.server.inference, after=_paused(0.1)) as relay:
        run = ground.prepared("clock-moved-back", api_url=relay.url)
        scoring = run.start_score(environment=environment)
        while "timestamp=" not in scoring.err:  # the first shard is done, and said so
            require(scoring.running, "the run was over before the clock jumped")
            time.sleep(0.01)
        clock.write_text("-1h\n")
        run.end(scoring)
    hours = _first_and_last_hour(scoring.err)
    require(hours[0] != hours[1], f"the scorer's log knows no jump: {hours}")
    return run.settle("an hour less in the log's last line")


def _first_and_last_hour(text: str) -> tuple[str, str]:
    stamps = re.findall(r"timestamp=(\S{13})", text)
    return (stamps[0], stamps[-1]) if stamps else ("", "")


def _snapshot(files: object) -> dict[str, bytes]:
    if not isinstance(files, Folder):
        raise TypeError(f"{files} is not a folder")
    return files.snapshot()
