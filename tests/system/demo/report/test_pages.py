"""The pages in a real browser: looked at, clicked through, on a phone, in the dark; and their size."""

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tools.paths import ROOT

PICTURES = ROOT / "docs" / "img"
Runs = Any  # what conftest.py makes: calls imagebatch; `uri`, `hostile`
MOST_PICTURE_BYTES = 150_000
# Scheme, width, height, and where on the page of a run.
LOOKS = {
    "light": ("light", 1200, 1000, "counts"),
    "dark": ("dark", 1200, 1000, "answers"),
    "pictures": ("light", 1200, 1000, "failed"),
    "phone": ("light", 390, 844, "counts"),
}


@pytest.fixture
def page(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what it has complained about or fetched over any network."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    opened = context.new_page()
    noted: list[str] = []
    opened.on("console", lambda message: noted.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: noted.append(f"error: {error}"))
    opened.on("dialog", lambda dialog: noted.append(f"dialog: {dialog.message}"))
    opened.on(
        "request",
        lambda request: None if request.url.startswith(("data:", "file:")) else noted.append(request.url),
    )
    yield opened, noted
    context.close()


def test_a_person_clicks_through_from_history_to_a_failed_image(
    runs: Runs, page: tuple[Page, list[str]]
) -> None:
    """Proves the way from all runs, kept by their reports, to one, with no error and no request."""
    opened, noted = page
    opened.goto(f"file://{runs.uri}/_history/history.html")
    assert opened.locator("h1").inner_text() == "2 runs"
    opened.get_by_role("link", name="night-2").click()
    assert opened.locator("h1").inner_text() == "night-2"
    for link in opened.locator("nav a[href^='#']").all():
        link.click()
        target = opened.locator(str(link.get_attribute("href")))
        assert target.is_visible()
    opened.locator("summary", has_text="blurred").click()
    assert opened.locator("details[open]", has_text="blurred.png").count() == 1
    opened.locator("summary", has_text="near duplicate").click()
    twins = opened.locator("details[open]", has_text="near duplicate").locator("li")
    assert "the earlier one" in twins.nth(0).inner_text()
    assert "looks like" in twins.nth(1).inner_text()
    failed = opened.locator("#failed")
    assert "not an image" in failed.inner_text().lower()
    assert failed.locator(f"[title='{runs.hostile}']").count() == 1
    assert opened.locator("#review img").count() >= 20
    widths = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths
    assert all(width > 0 for width in widths)
    opened.get_by_role("link", name="All runs").click()
    assert opened.locator("h1").inner_text() == "2 runs"
    assert noted == []


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_is_cut_off(
    runs: Runs, long_history: Path, browser: Browser, look: str, tmp_path: Path
) -> None:
    """Proves that no page scrolls sideways, in light, in dark and on a phone; keeps its looks on request."""
    folder = PICTURES if os.environ.get("IMAGEBATCH_WRITE_DOCS") else tmp_path
    scheme, width, height, section = LOOKS[look]
    pages = {"report": runs.uri / "night-2" / "output" / "report.html"}
    if look != "pictures":
        pages["history"] = long_history
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": height}
    )
    for name, path in pages.items():
        opened = context.new_page()
        opened.goto(path.as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") == width
        if section != "counts" and name == "report":
            opened.evaluate(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
        picture = folder / f"{name}-{look}.jpg"
        opened.screenshot(path=picture, type="jpeg", quality=72)
        assert picture.stat().st_size < MOST_PICTURE_BYTES
    context.close()


def test_ten_thousand_images_fit_two_megabytes(
    runs: Runs, fixed_server: str, tmp_path: Path, page: tuple[Page, list[str]]
) -> None:
    """Proves the page's bound on a run of 10,000 images with hundreds of failures."""
    source = sorted((runs.uri.parent / "after").glob("*"))
    lines = [
        f"{name:05}-{path.name.replace(' ', '-')},{path.as_uri()}" for name, path in _cycled(source, 10_000)
    ]
    manifest = tmp_path / "manifest.csv"
    quoted = [
        '"' + '","'.join(cell.replace('"', '""') for cell in line.split(",", 1)) + '"' for line in lines
    ]
    manifest.write_text("\n".join(["image_id,uri", *quoted]))
    options = ("--allowed-roots", f"{runs.uri.parent / 'after'},{tmp_path}", "--max-failures", "50%")
    runs(
        *("run", "--run-id", "large", "--manifest", manifest, *options),
        environment={"IMAGEBATCH_API_URL": fixed_server},
    )
    report = runs.uri / "large/output/report.html"
    assert report.stat().st_size < 2_000_000
    opened, noted = page
    opened.goto(report.as_uri())
    assert "10,000 of 10,000 accounted for" in opened.locator("header.top").inner_text()
    assert noted == []


def test_a_run_is_one_mlflow_run_however_often_it_is_logged(runs: Runs, mlflow: str) -> None:
    """Proves parameters, figures and the link in a real MLflow, and that logging twice makes one run."""
    for _ in range(2):
        runs("report", "--run-id", "night-2", "--tracking-uri", mlflow)
    base = f"{mlflow}/api/2.0/mlflow"
    with urllib.request.urlopen(f"{base}/experiments/get-by-name?experiment_name=batch-runs") as reply:  # noqa: S310 - loopback
        experiment = json.load(reply)["experiment"]["experiment_id"]
    body = json.dumps({"experiment_ids": [experiment]}).encode()
    request = urllib.request.Request(f"{base}/runs/search", body, {"Content-Type": "application/json"})  # noqa: S310 - loopback
    with urllib.request.urlopen(request) as reply:  # noqa: S310 - loopback
        found = json.load(reply)["runs"]
    assert len(found) == 1
    data = found[0]["data"]
    metrics = {metric["key"]: metric["value"] for metric in data["metrics"]}
    assert metrics["listed"] == metrics["predicted"] + metrics["failed"] + metrics["rejected"]
    assert 0 < metrics["class_share/poly-sound"] < 1
    assert {"model", "input", "shard_size"} <= {parameter["key"] for parameter in data["params"]}
    tags = {tag["key"]: tag["value"] for tag in data["tags"]}
    assert tags["imagebatch.report"].endswith("night-2/output/report.html")
    assert found[0]["info"]["status"] == "FINISHED"


def _cycled(paths: list[Path], count: int) -> Iterator[tuple[int, Path]]:
    return ((number, paths[number % len(paths)]) for number in range(count))
