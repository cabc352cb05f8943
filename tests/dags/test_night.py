"""A run of another night, or a trial, does not speak as if it were tonight's."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from imagebatch_dags.asked import Asked, params_of
from imagebatch_dags.night import Night
from imagebatch_dags.pipeline import Pipeline

NIGHTLY = Pipeline(dag_id="nightly", input="/data/{date}")
BY_HAND = Pipeline(dag_id="handmade", input="/data/x", schedule="")
DUE = datetime(2026, 1, 31, 2, tzinfo=UTC)
LATER = DUE + timedelta(days=2, hours=3)


def told(pipeline: Pipeline, run: SimpleNamespace, **conf: Any) -> tuple[str, str, str]:
    """Give what a stage is told: its pipeline, when the next run is due, and its deadline."""
    params = {name: param.value for name, param in params_of(pipeline).items()} | conf
    night = Night(pipeline, Asked(pipeline))
    return night.speaks_as(run, params), night.next_run(run, params), night.deadline_of(run, params)


def test_tonights_run_speaks_for_the_pipeline_however_long_it_takes(dag_run: Any) -> None:
    """It began on time; that a stage of it begins when the next night is due changes nothing."""
    assert told(NIGHTLY, dag_run("nightly")) == (
        "nightly",
        "2026-02-01T02:00:00+00:00",
        "2026-01-31T03:00:00+00:00",
    )


@pytest.mark.parametrize(
    "more",
    [
        {"run_type": "backfill"},
        {"clear_number": 1},
        {"run_type": "manual", "run_after": LATER},
    ],
    ids=["backfilled", "cleared", "by hand with a past logical date"],
)
def test_a_past_night_has_a_name_of_its_own_and_a_deadline_ahead(dag_run: Any, more: dict[str, Any]) -> None:
    """It says nothing of the next run, sets no figure of tonight's, and has as much time as any."""
    run = dag_run("nightly", start_date=LATER, **more)
    assert told(NIGHTLY, run) == ("nightly.past", "", "2026-02-02T06:00:00+00:00")


def test_last_nights_run_that_is_cleared_in_the_morning_is_still_tonights(dag_run: Any) -> None:
    """No later one was due: its table is what is waited for. Its deadline is counted anew, as Airflow's."""
    run = dag_run("nightly", start_date=DUE + timedelta(hours=7), clear_number=1)
    assert told(NIGHTLY, run) == ("nightly", "2026-02-01T02:00:00+00:00", "2026-01-31T10:00:00+00:00")


def test_a_run_by_hand_for_the_whole_input_speaks_for_the_pipeline(dag_run: Any) -> None:
    """That is how a night that failed is made again: for the day itself, or for the newest by its date."""
    run = dag_run("nightly", run_type="manual", logical_date=None, run_after=LATER, start_date=LATER)
    expected = ("nightly", "2026-02-03T02:00:00+00:00", "2026-02-02T06:00:00+00:00")
    assert told(NIGHTLY, run, date="2026-02-02") == expected
    assert told(NIGHTLY, run, date="2026-02-02", max_failures="20%", pack_size=4) == expected
    assert told(NIGHTLY, run, date="2026-02-01")[0] == "nightly.past"


CHANGES = [{"limit": 30}, {"input": "/data/other"}, {"manifest": "/l.csv"}, {"model": "m2"}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_has_a_name_of_its_own(dag_run: Any, change: dict[str, Any]) -> None:
    """Thirty images are no night that lost its input, and their certificate is no success of the night."""
    run = dag_run("nightly", run_type="manual", run_after=LATER, logical_date=LATER, start_date=LATER)
    assert told(NIGHTLY, run, **change)[:2] == ("nightly.trial", "")
    assert told(BY_HAND, run, **change)[:2] == ("handmade.trial", "")


def test_a_limit_of_the_pipeline_itself_is_no_trial(dag_run: Any) -> None:
    """What its file says is what it is."""
    pipeline = Pipeline(dag_id="sample", input="/data/x", limit=30)
    run = dag_run("sample", run_type="manual")
    assert told(pipeline, run, limit=30)[0] == "sample"
    assert told(pipeline, run, limit=0)[0] == "sample.trial"


def test_without_a_schedule_no_night_is_past(dag_run: Any) -> None:
    """Nothing is due."""
    run = dag_run("handmade", run_type="manual", start_date=LATER)
    assert told(BY_HAND, run) == ("handmade", "", "2026-02-02T06:00:00+00:00")
