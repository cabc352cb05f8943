import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string
from imagebatch_dags.alerts import deadlines, report_missed_deadline


def missed(state: str) -> dict[str, Any]:
    """Build the context that Airflow hands to a deadline's callback."""
    return {"dag_run": {"dag_id": "batch", "dag_run_id": "manual__1", "state": state}}


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Listen on loopback, and collect what is posted."""
    posted: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("IMAGEBATCH_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook")
        yield posted
        server.shutdown()
        thread.join()


def test_deadlines_are_off_until_an_installation_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the switch a DAG has none, so that `dag.test()` can succeed."""
    assert deadlines(timedelta(minutes=1), timedelta(minutes=2)) == []
    monkeypatch.setenv("IMAGEBATCH_DEADLINES", "1")
    warn, late = deadlines(timedelta(minutes=1), timedelta(minutes=2))
    assert [(each.name, each.interval) for each in (warn, late)] == [
        ("warn", timedelta(minutes=1)),
        ("late", timedelta(minutes=2)),
    ]


def test_the_callback_is_importable_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow finds the callback by name, with the arguments that it takes."""
    monkeypatch.setenv("IMAGEBATCH_DEADLINES", "1")
    (warn, _) = deadlines(timedelta(minutes=1), timedelta(minutes=2))
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
    assert webhook == [{"text": text, "severity": severity, "state": state, "run": "batch manual__1"}]


def test_a_run_that_succeeded_meanwhile_is_not(webhook: list[dict[str, Any]]) -> None:
    """A table that is there wakes nobody."""
    report_missed_deadline(missed("success"), severity="late", minutes=30)
    assert webhook == []


def test_a_webhook_that_is_no_web_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or another scheme is not opened."""
    monkeypatch.setenv("IMAGEBATCH_ALERT_WEBHOOK", "file:///etc/passwd")
    with pytest.raises(ValueError, match="http or https"):
        report_missed_deadline(missed("failed"), severity="late", minutes=30)
