"""report.html: what it says, what it escapes, what it never changes, and what if it cannot be made."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from imagebatch.observe.timeline import MOST_BUCKETS, Recorder
from imagebatch.stages.report.facts import spread

from tests.support.calls import Call, Outcome, scored
from tests.support.images import jpeg, photograph
from tests.support.model_server import ModelServer, Wrong

HOSTILE = "<img src=x onerror=alert(1)> \"&'.jpg"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def finished(call: Call, images: Path) -> Outcome:
    """A run with three images that fail, and its report."""
    (images / HOSTILE).write_bytes(b"no image")
    (images / "broken.jpg").write_bytes(jpeg(77)[:200])
    (images / "empty.jpg").write_bytes(b"")
    outcome = scored(call, "r", images, "--max-failures", "20%")
    assert call("report", "--run-id", "r").code == 0
    return outcome


def test_the_page_says_what_the_certificate_says(finished: Outcome, runs: Path) -> None:
    """Proves counts, reasons, model, stages and classes on the page of a run with failures."""
    assert finished.code == 0
    text = Page((runs / "r/output/report.html").read_text()).text
    assert "Nothing lost: 43 of 43 accounted for" in text
    unpredicted = finished.last["failed"] + finished.last["rejected"]
    assert unpredicted >= 2
    assert f"{unpredicted} without a prediction" in text
    for wanted in ("not an image", "preprocess", "score", "postprocess", "Review queue"):
        assert wanted in text


def test_pages_that_nobody_saw_are_told(call: Call, images: Path, runs: Path) -> None:
    """Proves that files with several pages are counted in the manifest and named on the page."""
    pages = [photograph(seed, (40, 30)) for seed in range(3)]
    pages[0].save(images / "scan.tif", save_all=True, append_images=pages[1:])
    pages[0].save(images / "moving.gif", save_all=True, append_images=pages[1:2])
    assert scored(call, "r", images).code == 0
    assert call("report", "--run-id", "r").code == 0
    text = " ".join(Page((runs / "r/output/report.html").read_text()).text.split())
    assert "2 of the files hold several pages or frames, 5 in all: number 1 of each was seen" in text


def test_hostile_names_are_text(finished: Outcome, runs: Path) -> None:
    """Proves that a file name that is markup arrives as text; nothing on the page can run or be fetched."""
    assert finished.code == 0
    source = (runs / "r/output/report.html").read_text()
    page = Page(source)
    assert "onerror=alert(1)" in page.text
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in {"src", "href"}]
    assert {value for value in links if not value.startswith(("data:", "#"))} == {
        "../../_history/history.html"
    }
    assert not re.search(r"url\(|@import", source)
    assert "default-src 'none'" in source


def test_a_run_with_retries_but_no_outage_has_a_page(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """What scoring did not meet is counted as 0, not missed: the page names the retries alone."""
    server.faults = lambda number, _images: Wrong(500, b"Worker died.") if number == 3 else None
    scored(call, "r", images)
    assert call("report", "--run-id", "r").code == 0
    text = Page((runs / "r/output/report.html").read_text()).text
    assert "On the way: 1 retries" in text
    assert "without an answer" not in text


@pytest.mark.usefixtures("finished")
def test_making_the_report_again_changes_no_proven_byte(call: Call, runs: Path) -> None:
    """Proves that the report is an extra: the run verifies, and its outputs stay as they were."""
    proven = ["certificate.json", "predictions.csv", "predictions.parquet", "failures.csv"]
    before = [hashlib.sha256((runs / "r/output" / name).read_bytes()).digest() for name in proven]
    assert call("report", "--run-id", "r").code == 0
    assert [hashlib.sha256((runs / "r/output" / name).read_bytes()).digest() for name in proven] == before
    assert call("verify", "--run-id", "r").code == 0


def test_a_report_that_fails_never_fails_the_run(call: Call, images: Path, runs: Path) -> None:
    """Proves that a run with a missing baseline and no MLflow is finished, proven and says what it lacks."""
    outcome = call("run", "--run-id", "r", "--input", images, "--baseline", runs / "none.parquet")
    assert outcome.code == 0
    assert "the run has no report" in outcome.err
    assert call("verify", "--run-id", "r").code == 0
    away = call("report", "--run-id", "r", "--tracking-uri", "http://127.0.0.1:9")
    assert away.code == 0
    assert "the run is not in MLflow" in away.err


def test_a_redrive_leaves_no_page_of_before(call: Call, images: Path, runs: Path, finished: Outcome) -> None:
    """Proves that the page follows a redrive, and that it is gone rather than old if it cannot be made."""
    page = runs / "r/output/report.html"
    unpredicted = finished.last["failed"] + finished.last["rejected"]
    (images / "empty.jpg").write_bytes(jpeg(90))
    assert call("redrive", "--run-id", "r", "--reasons", "empty").code == 0
    assert f"{unpredicted - 1} without a prediction" in Page(page.read_text()).text
    (images / "broken.jpg").write_bytes(jpeg(91))
    missing = ("--baseline", runs / "none.parquet")
    assert call("redrive", "--run-id", "r", *missing).code == 0
    assert not page.exists()
    assert call("verify", "--run-id", "r").code == 0


def test_images_that_are_gone_leave_a_page_without_pictures(call: Call, images: Path, runs: Path) -> None:
    """Proves that a report can be made when the inputs have been removed."""
    assert scored(call, "r", images).code == 0
    for path in images.rglob("*.jpg"):
        path.unlink()
    assert call("report", "--run-id", "r").code == 0
    assert "no picture" in (runs / "r/output/report.html").read_text()


def test_a_run_that_has_not_finished_has_no_report(call: Call, images: Path) -> None:
    """Proves that the verb refuses a run without a certificate."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    assert call("report", "--run-id", "r").code == 78


def test_a_series_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a day of progress keeps every image in at most 240 buckets."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    recorder = Recorder("score")
    for _ in range(86_400 // 60):
        recorder.advance(7, 1)
        now[0] += 60
    record = recorder.record("done")
    assert len(record.series) <= MOST_BUCKETS
    assert sum(record.series) == record.images == 7 * 1440


def test_a_part_is_spread_over_the_time_in_which_it_was_made() -> None:
    """Proves that the chart shows the rate, not the rhythm of writing, and no image more or less."""
    assert spread([0, 0, 0, 200, 100, 0, 60]) == [50, 50, 50, 50, 100, 30, 30]
    assert spread([]) == []
    assert spread([0, 8, 0, 0]) == [4, 4, 0, 0]
