from dataclasses import replace

import pytest

from benchmarks.lib.scale import MOST_PER_SHARD, MOST_SHARDS, Constants, Fleet, Line, Plan, cut, estimate
from benchmarks.lib.simulated import PIECES, Night, Trouble

NIGHT = 8 * 3600.0
CONSTANTS = Constants(
    rate=100.0,
    preprocess=Line(1.0, 1e-4),
    check_manifest=Line(5.0, 0.0),
    check_predictions=Line(5.0, 0.0),
    postprocess=Line(1.0, 1e-5),
    task=0.5,
)


@pytest.mark.parametrize("images", [1, 10**4, 10**7, 10**9])
def test_no_night_is_cut_into_more_than_airflow_maps(images: int) -> None:
    """Every image is in a shard, no shard is too large, and no run waits long for what one core does."""
    plan = cut(images, 8, CONSTANTS, NIGHT)
    assert plan.runs * plan.shards * plan.shard_size >= images
    assert plan.shards <= MOST_SHARDS
    assert plan.shard_size <= MOST_PER_SHARD
    assert CONSTANTS.single(images / plan.runs) <= NIGHT / 4


def test_the_arithmetic_of_one_machine() -> None:
    """40,000 images at 200 a second are 200 s; the stages of one core and the tasks' starts come on top."""
    found = estimate(Plan(40_000, 1, 4_000, 10), Fleet(1, 2), CONSTANTS)
    assert found.scoring == pytest.approx(200)
    assert found.single == pytest.approx(12 + 4.4)
    assert found.seconds == pytest.approx(200 + 16.4 + 8 * 0.5)
    # Of three machines two have three shards and one four: the others wait for one shard, 20 s.
    assert estimate(Plan(40_000, 1, 4_000, 10), Fleet(3, 2), CONSTANTS).tail == pytest.approx(40 / 3)


@pytest.mark.parametrize("fleet", [Fleet(1, 2), Fleet(4, 16), Fleet(10, 8)])
def test_the_simulation_agrees_with_the_arithmetic(fleet: Fleet) -> None:
    """Where nothing goes wrong; it knows nothing of the other but the constants."""
    plan = cut(5_000_000, fleet.slots, CONSTANTS, NIGHT)
    night = Night(plan, fleet, CONSTANTS, Trouble()).play()
    assert night.seconds == pytest.approx(estimate(plan, fleet, CONSTANTS).seconds, rel=0.05)
    assert (night.again, night.failures) == (0, 0)


def test_a_night_with_failures_loses_nothing_and_takes_longer() -> None:
    """Each piece is scored to its end, those under a failing machine again; the same seed, the same night."""
    plan, fleet = cut(2_000_000, 8, CONSTANTS, NIGHT), Fleet(4, 2)
    trouble = Trouble(spread=0.3, failures=2.0)
    calm, first, second = (
        Night(plan, fleet, CONSTANTS, each, seed=1).play()
        for each in (replace(trouble, failures=0.0), trouble, trouble)
    )
    assert first.pieces == calm.pieces == plan.runs * plan.shards * PIECES
    assert first.failures > 0
    assert 0 < first.again <= first.failures * fleet.shards
    assert first.seconds > calm.seconds
    assert (first.seconds, first.again) == (second.seconds, second.again)
