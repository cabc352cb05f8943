"""`imagebatch shadow`: two versions on a finished run's images, without a change to the run."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import Call, scored
from tests.support.images import jpeg
from tests.support.model_server import LABELS, ModelServer, answer_to

HOSTILE = "<img src=x onerror=alert(1)> \"&'.jpg"


class TwoVersions(ModelServer):
    """Version 2 names another label for every second image, by its bytes."""

    def answer(self, request: Any) -> None:
        path: str = request.path
        self.second = path.endswith("/2")
        super().answer(request)

    def description(self) -> dict[str, Any]:
        told = super().description()
        return told | {"model": told["model"] | {"version": "2" if self.second else "1.0"}}

    def _good(self, images: list[tuple[str, bytes]], headers: Any) -> bytes:
        if self.second:
            images = [(name, data + b"!" if data[-3] % 2 else data) for name, data in images]
        return super()._good(images, headers)


@pytest.fixture
def server() -> Iterator[TwoVersions]:
    with TwoVersions() as running:
        running.second = False
        yield running


@pytest.fixture
def finished(call: Call, images: Path) -> Path:
    (images / HOSTILE).write_bytes(next(data for data in map(jpeg, range(91, 191)) if differs(data)))
    assert scored(call, "night", images).code == 0
    return images


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def different(images: Path) -> int:
    """How many images the versions disagree on, worked out without the command."""
    return sum(differs(path.read_bytes()) for path in images.rglob("*.jpg"))


def differs(data: bytes) -> bool:
    """Whether the second version names another label."""
    other = data + b"!" if data[-3] % 2 else data
    first, second = (answer_to(each, len(LABELS))["labels"][0] for each in (data, other))
    return bool(first != second)


def test_disagreements_are_counted_and_shown(call: Call, finished: Path, runs: Path, tmp_path: Path) -> None:
    """Every image with another top label, with its picture; the run is as before."""
    before = {path: path.read_bytes() for path in (runs / "night").rglob("*") if path.is_file()}
    page = tmp_path / "pages/shadow.html"
    asked = call("shadow", "--run-id", "night", "--model-version", "2", "--sample", "1000", "--output", page)
    assert asked.code == 0
    expected = different(finished)
    assert 0 < expected < 41
    assert (asked.last["images"], asked.last["different"]) == (41, expected)
    assert (asked.last["old"], asked.last["new"], asked.last["page"]) == ("1.0", "2", str(page))
    tags = Tags(page.read_text())
    pictures = [attributes["src"] for tag, attributes in tags.seen if tag == "img"]
    assert len(pictures) == expected
    assert all(src and src.startswith("data:image/jpeg;base64,/9j/") for src in pictures)
    assert not [tag for tag, _ in tags.seen if tag == "script"]
    assert f"another answer on {expected} of 41 images" in tags.text
    assert {path: path.read_bytes() for path in (runs / "night").rglob("*") if path.is_file()} == before


def test_the_newest_run_of_the_model_is_taken(call: Call, finished: Path, tmp_path: Path) -> None:
    """Where none is named; without any there is nothing to do, and an unknown one is 78."""
    assert finished
    options = ("--model-version", "2", "--output", tmp_path / "page.html")
    nothing = call("shadow", *options)
    assert (nothing.code, "name one by --run-id" in nothing.err) == (99, True)
    assert call("report", "--run-id", "night").code == 0
    assert call("shadow", *options).last["run"] == "night"
    assert call("shadow", *options, "--run-id", "other").code == 78
    (tmp_path / "file").write_text("")
    refused = call("shadow", "--model-version", "2", "--output", tmp_path / "file/page.html")
    assert refused.code == 74


def test_a_hostile_name_is_text_on_the_page(call: Call, finished: Path, tmp_path: Path) -> None:
    """Whatever the versions say of it."""
    page = tmp_path / "page.html"
    assert call("shadow", "--run-id", "night", "--model-version", "2", "--output", page).code == 0
    text = page.read_text()
    assert finished
    assert "<img src=x" not in text
    assert any(HOSTILE in (attributes.get("title") or "") for _, attributes in Tags(text).seen)
    assert all("onerror" not in attributes for _, attributes in Tags(text).seen)
