"""What every model API must do with every server: checks that act on the ground and a contestant."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from imagebatch import conformance
from imagebatch.conformance import Outcome

from tests.system.conformance.ground import Contestant, Ground
from tests.system.conformance.pairs import endpoint_killed, two_models
from tests.system.kit.scenario import Scenario, described
from tests.system.kit.verdict import Seen, require

Check = Callable[[Ground, Contestant], Seen]
OF_THE_COMMAND = (*conformance.CHECKS, *conformance.UNDER_LOAD)


def _of_the_command(check: conformance.Check) -> Scenario:
    """Make a row of a check of `imagebatch conformance`; one that is skipped says why."""

    def act(ground: Ground, contestant: Contestant) -> Seen:
        finding = conformance.found(check, ground.subject(contestant))
        require(finding.outcome is not Outcome.FAILED, finding.seen)
        return Seen(finding.seen)

    return Scenario(check.name.replace(" ", "-"), check.says, act, "checks")


def _row(act: Check) -> Scenario:
    return Scenario(act=act, **described(act))


def golden_csv(ground: Ground, contestant: Contestant) -> Seen:
    """A run gives the rows of TorchServe's, to the last digit, and the one broken image in failures.csv."""
    rows = ground.run(contestant, "golden")
    ground.require_same(rows)
    return Seen(f"{len(rows)} rows the same")


def crowd(ground: Ground, contestant: Contestant) -> Seen:
    """Thirty-two requests at once change no answer."""
    ground.require_same(ground.run(contestant, "crowd", in_flight=32))
    return Seen("same rows")


def killed(ground: Ground, contestant: Contestant) -> Seen:
    """A server killed in the middle of a run and started again costs time, and no row."""
    server = ground.server(contestant.server)
    ended = threading.Event()
    shard = ground.runs / contestant.run_id("killed") / "scores"

    def disturb() -> None:
        while not any(shard.glob("*")):  # the first request follows at once
            if ended.wait(0.001):
                return
        server.kill()
        server.start()

    with ThreadPoolExecutor(1) as thread:
        disturbed = thread.submit(disturb)
        try:
            rows = ground.run(contestant, "killed", in_flight=2)
        finally:
            ended.set()
        disturbed.result()
    ground.require_same(rows)
    counts = [json.loads(file.read_text()) for file in shard.parent.glob("telemetry/*.json")]
    retries = sum(count.get("retries", 0) for count in counts)
    require(retries, "the server was killed too late for the run to notice")
    return Seen(f"same rows, {retries:.0f} retries")


# Those of every server's contract are the command's own (`imagebatch conformance`); the others want the
# reference of TorchServe, and whole runs.
CHECKS: tuple[Scenario, ...] = (
    _row(golden_csv),
    *map(_of_the_command, OF_THE_COMMAND),
    _row(crowd),
    _row(killed),
    _row(endpoint_killed),
    _row(two_models),
)
