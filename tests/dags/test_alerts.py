import logging
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string
from imagebatch_dags.alerts import deadlines, report_missed_deadline


def missed(state: str) -> dict[str, Any]:
    """Build the context that Airflow hands to a deadline's callback."""
    return {"dag_run": {"dag_id": "batch", "dag_run_id": "manual__1", "state": state}}


def test_deadlines_are_off_until_an_installation_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the switch a DAG has none, so that `dag.test()` can succeed."""
    assert deadlines(timedelta(minutes=1), timedelta(minutes=2)) == []
    monkeypatch.setenv("IMAGEBATCH_DEADLINES", "1")
    assert [(each.name, each.interval) for each in deadlines(timedelta(minutes=1), timedelta(minutes=3))] == [
        ("warn", 60.0),
        ("late", 180.0),
        ("escalation", 300.0),
    ]


def test_the_callback_is_importable_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow finds the callback by name, with the arguments that it takes."""
    monkeypatch.setenv("IMAGEBATCH_DEADLINES", "1")
    warn, *_ = deadlines(timedelta(minutes=1), timedelta(minutes=2))
    function = import_string(warn.callback.path)
    assert function(context=missed("success"), **warn.callback.kwargs).endswith("nothing to report")


@pytest.mark.parametrize(("severity", "level"), [("warn", logging.WARNING), ("late", logging.ERROR)])
@pytest.mark.parametrize("state", ["running", "queued", "failed"])
def test_a_run_without_its_table_is_reported(
    webhook: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, severity: str, level: int, state: str
) -> None:
    """An unfinished run and a failed one are logged and posted once each."""
    text = report_missed_deadline(missed(state), severity=severity, minutes=30)
    assert text == f"imagebatch {severity}: batch manual__1 is {state}, 30 minutes after it was queued"
    assert (level, text) in [(record.levelno, record.getMessage()) for record in caplog.records]
    key = f"batch manual__1 {severity}"
    expected = {"text": text, "severity": severity, "state": state, "run": "batch manual__1", "key": key}
    assert webhook == [expected | {"page": "docs/how-to/runbook.md#imagebatchmisseddeadline"}]


def test_a_run_that_succeeded_meanwhile_is_not(webhook: list[dict[str, Any]]) -> None:
    """A table that is there wakes nobody."""
    report_missed_deadline(missed("success"), severity="late", minutes=30)
    assert webhook == []
