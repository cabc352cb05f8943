"""Whatever a server does and wherever a process dies: the calm run's bytes, or a clean refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings

from tests.support.storm_runs import Ground, StormRun, calm_ground
from tests.support.storms import LATER, POISON, REFUSALS, SUSPICIOUS, TAMPERED, Interruption, Storm, storms

SECONDS = 900.0  # after which no other random storm begins: on a busy machine there are fewer of them
HANGS = 3600  # seconds; a storm takes seconds, so this is no slow machine but a process that waits for ever

NAMED = {
    "calm": Storm(),
    "asked to come back later": Storm(passing={0: list(LATER), 5: list(LATER), 11: ["503"] * 4}),
    "suspicious replies, twice each": Storm(passing={n: [name] * 2 for n, name in enumerate(SUSPICIOUS)}),
    "broken connections": Storm(passing={1: ["hang up", "reset"], 6: ["truncated"], 9: ["reset", "hang up"]}),
    "replies that must not be believed": Storm(passing={n: [name] for n, name in enumerate(TAMPERED)}),
    "a server that stalls": Storm(passing={3: ["stalled"]}),
    "requests larger than the server takes": Storm(pack_size=16, largest=1),
    "more failures than allowed": Storm(poison={2: "500", 7: "HTML"}, allowed="3"),
    **{f"an image that is answered by {fault}": Storm(poison={4: fault}) for fault in POISON},
    **{f"{kind} in the middle": Storm(interruption=Interruption(kind, 3)) for kind in REFUSALS},
    **{
        f"{stage} killed at its change {change}": Storm(
            poison={4: "500"}, interruption=Interruption("killed", change, stage)
        )
        for stage, changes in {
            "preprocess": (1, 3),
            "score": (2, 9),
            "postprocess": (1, 4),
            "redrive": (1, 5),
        }.items()
        for change in changes
    },
}


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Twelve good images, one that the handler refuses, one that preprocess rejects, and their calm run."""
    with calm_ground() as ground:
        yield ground


@pytest.fixture(scope="module")
def end() -> float:
    """The moment after which no other random storm begins."""
    return time.monotonic() + SECONDS


@pytest.mark.parametrize("storm", NAMED.values(), ids=NAMED)
def test_a_storm_of_one_kind_is_survived(ground: Ground, storm: Storm) -> None:
    """Each kind of fault, alone: every image is predicted as in the calm run, or named a failure."""
    run = StormRun(ground, storm)
    run.prove()
    stops = storm.interruption is not None or storm.allowed == "3"
    assert len(run.stopped) == int(stops), "the storm is not what its name says"


@pytest.mark.timeout(HANGS)
@settings(
    phases=[Phase.generate],
    report_multiple_bugs=False,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(storm=storms())
def test_a_storm_leaves_the_calm_bytes_or_a_clean_refusal(ground: Ground, end: float, storm: Storm) -> None:
    """Faults, poison, refusals, kills: every image is predicted as in the calm run, or named a failure."""
    if time.monotonic() > end:
        event("not tried for want of time")
        return
    StormRun(ground, storm).prove()
