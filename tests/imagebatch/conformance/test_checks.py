"""Each check passes with a good server and notices the one thing that it is about."""

from __future__ import annotations

import io
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from imagebatch.conformance import CHECKS, UNDER_LOAD, Finding, Outcome, Subject, found
from imagebatch.conformance.likeness import apart
from imagebatch.conformance.pictures import drawn
from imagebatch.contracts.records import ModelPin
from imagebatch.heads import head_of
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import Answer, ModelApi
from imagebatch.settings import ApiSettings
from PIL import Image

from tests.support.handler_archives import LABELS
from tests.support.model_server import Wrong
from tests.support.protocol_server import Habits, ProtocolServer

IMAGES = drawn(6)
BY_NAME = {check.name: check for check in (*CHECKS, *UNDER_LOAD)}


def readable(data: bytes) -> bool:
    """Whether a decoder takes it."""
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:
        return False
    return True


def refusing(files: list[bytes]) -> Wrong | None:
    """What most servers do with an image that their model cannot read."""
    return None if all(map(readable, files)) else Wrong(500, b"cannot identify image file")


class Opened:
    """A server and the subject that its checks act on."""

    def __init__(self, server: ProtocolServer, card: Path) -> None:
        card.write_text(json.dumps({"labels": LABELS, "input": "image"}))
        self.server, self.card = server, card
        server.faults = refusing
        self._settings = ApiSettings(api_url=server.url, model_card=str(card))

    def connect(self, model: str) -> ModelApi:
        return open_backend("kserve_v1", self._settings, model, "")

    def subject(self, **more: Any) -> Subject:
        api = self.connect("solar-cells")
        return Subject(self.connect, api, api.describe(), IMAGES, 4, patience=5, **more)

    def finding(self, name: str, **more: Any) -> Finding:
        return found(BY_NAME[name], self.subject(**more))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with ProtocolServer(Habits("kserve_v1", raw=False, tells=False, describes=False)) as server:
        yield Opened(server, tmp_path / "card.json")


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "restart"])
def test_a_good_server_passes(opened: Opened, name: str) -> None:
    """Nothing is found where there is nothing."""
    finding = opened.finding(name)
    assert (finding.outcome, bool(finding.seen)) == (Outcome.PASSED, True), finding.seen


def changed(change: Callable[[list[Any]], list[Any]]) -> Callable[[dict[str, Any]], Any]:
    return lambda reply: {"predictions": change(reply["predictions"])}


def test_answers_in_another_order_are_noticed(opened: Opened) -> None:
    """A server that turns the answers of a pack round is the one fault that no single reply shows."""
    subject = opened.subject()
    opened.server.tamper = changed(lambda rows: rows[1:] + rows[:1])
    finding = found(BY_NAME["in order"], subject)
    assert finding.outcome is Outcome.FAILED
    assert "6 of 6 images are answered differently in one request, image 0 first" in finding.seen


def test_a_missing_answer_is_noticed(opened: Opened) -> None:
    """One answer too few, where there are several."""
    subject = opened.subject()
    opened.server.tamper = changed(lambda rows: rows[:-1] if len(rows) > 2 else rows)
    finding = found(BY_NAME["counted"], subject)
    assert finding.outcome is Outcome.FAILED
    assert "2 answers that do not match 3 images" in finding.seen


def test_images_that_look_alike_show_no_order(opened: Opened) -> None:
    """A check that cannot fail is not passed but skipped, and says what to do."""
    subject = opened.subject()
    opened.server.answers = lambda _: [0.7, 0.1, 0.1, 0.1]
    finding = found(BY_NAME["in order"], subject)
    assert (finding.outcome, "give different ones by --input" in finding.seen) == (Outcome.SKIPPED, True)


@pytest.mark.parametrize("name", ["refused alone", "garbage"])
def test_a_prediction_for_what_is_no_image_is_noticed(opened: Opened, name: str) -> None:
    """A model that answers to anything hides broken files."""
    opened.server.faults = lambda _: None
    finding = opened.finding(name)
    assert finding.outcome is Outcome.FAILED
    assert "got a prediction" in finding.seen


@pytest.mark.parametrize("name", ["refused alone", "garbage"])
def test_a_bad_image_that_looks_like_overload_is_noticed(opened: Opened, name: str) -> None:
    """A run would wait for the server, when the image is at fault."""
    opened.server.faults = lambda files: Wrong(503) if refusing(files) else None
    finding = opened.finding(name)
    assert finding.outcome is Outcome.FAILED
    assert "is taken for a server that is overloaded" in finding.seen


def test_a_neighbour_that_suffers_is_noticed(opened: Opened) -> None:
    """What answers differently after a broken image has kept something of it."""
    spoilt: list[bool] = []

    def faults(files: list[bytes]) -> Wrong | None:
        wrong = refusing(files)
        if wrong and files[0]:
            spoilt.append(True)
        return wrong

    good = opened.server.answers
    opened.server.faults = faults
    opened.server.answers = lambda data: [1.0, 0, 0, 0] if spoilt else good(data)
    finding = opened.finding("garbage")
    assert finding.outcome is Outcome.FAILED
    assert "answered differently after a file that is text" in finding.seen


@pytest.mark.parametrize(("status", "outcome"), [(413, Outcome.PASSED), (500, Outcome.FAILED)])
def test_what_is_too_large_must_be_called_so(opened: Opened, status: int, outcome: Outcome) -> None:
    """A server that fails otherwise would have a large request sent again and again."""
    opened.server.faults = lambda files: Wrong(status) if sum(map(len, files)) > 2**21 else None
    assert opened.finding("too large").outcome is outcome
    assert max(opened.server.packs) > 10
    assert opened.finding("too large", largest=1).seen.endswith("answered")  # one image, whatever is allowed


def test_a_model_that_is_never_unknown_is_noticed(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in a model's name would score with another model."""
    monkeypatch.setattr("tests.support.protocol_server.MODEL", "")
    monkeypatch.setattr(opened.server, "told", lambda _path: Wrong(body=b'{"ready": true}'))
    finding = opened.finding("unknown model")
    assert (finding.outcome, "it was described" in finding.seen) == (Outcome.FAILED, True)
    assert opened.finding("unknown model", names_models=False).outcome is Outcome.SKIPPED


def test_another_model_from_one_moment_to_the_next_is_noticed(opened: Opened) -> None:
    """Two models behind one address, in turn."""
    turn = itertools.cycle([0.9, 0.1])
    subject = opened.subject()
    opened.server.answers = lambda _: [share := next(turn), 1 - share, 0, 0]
    finding = found(BY_NAME["pinned"], subject)
    assert (finding.outcome, "at first it was sha256:" in finding.seen) == (Outcome.FAILED, True)


def test_answers_that_get_mixed_up_under_load_are_noticed(opened: Opened) -> None:
    """Wrong only while another request is under way, as of a model that is not safe for threads."""
    good = opened.server.answers
    under_way = 0
    lock = threading.Lock()

    def mixed(data: bytes) -> list[float]:
        nonlocal under_way
        with lock:
            under_way += 1
        time.sleep(0.01)
        with lock:
            alone = under_way == 1
            under_way -= 1
        return good(data) if alone else [1.0, 0, 0, 0]

    opened.server.answers = mixed
    finding = opened.finding("at once")
    assert (finding.outcome, "answered differently under load" in finding.seen) == (Outcome.FAILED, True)
    assert opened.finding("at once", most=1).outcome is Outcome.PASSED


def test_being_put_off_is_borne_and_told(opened: Opened) -> None:
    """503 under load is what a full queue should say; 500 is not."""
    subject = opened.subject()
    turn = itertools.count()
    opened.server.faults = lambda _: Wrong(503) if next(turn) % 7 == 1 else None
    finding = found(BY_NAME["at once"], subject)
    assert finding.outcome is Outcome.PASSED
    assert "on the way:" in finding.seen
    assert "overloaded" in finding.seen
    opened.server.faults = lambda _: Wrong(500) if next(turn) % 7 == 1 else None
    assert "not put off, but: worker_died" in found(BY_NAME["at once"], opened.subject()).seen
    assert found(BY_NAME["at once"], opened.subject(most=0)).outcome is Outcome.SKIPPED


def test_a_restart_costs_time_alone(opened: Opened) -> None:
    """The server is away while it is restarted, and the same afterwards; without a command it is skipped."""
    server = opened.server

    def restart() -> None:
        seen = len(server.asked)
        server.faults = lambda _: Wrong(503)
        while len(server.asked) < seen + 4:  # until requests have met it
            threading.Event().wait(0.01)
        server.faults = refusing

    finding = opened.finding("restart", restart=restart)
    assert (finding.outcome, "overloaded" in finding.seen) == (Outcome.PASSED, True), finding.seen
    assert opened.finding("restart").outcome is Outcome.SKIPPED


def test_another_model_after_a_restart_is_noticed(opened: Opened) -> None:
    """What comes back must be what went away."""

    def restart() -> None:
        opened.server.answers = lambda _: [0.1, 0.2, 0.3, 0.4]

    assert opened.finding("restart", restart=restart).outcome is Outcome.FAILED


def test_how_far_answers_lie_apart() -> None:
    """Labels that only one of the answers has count with the least that they can have."""
    head = head_of(ModelPin(name="m", version="1", digest="", labels=["a", "b", "c"]), 2)
    one = Answer(("a", "b"), (0.6, 0.3))
    assert apart(head, one, one) == 0
    assert apart(head, one, Answer(("a", "c"), (0.6, 0.3))) == 0  # b and c: 0.3 at most, in both
    assert apart(head, one, Answer(("b", "a"), (0.6, 0.3))) == pytest.approx(0.3)
    assert apart(head, one, Answer(reason="decode_failed")) == 1
    assert apart(head, Answer(reason="x"), Answer(reason="y")) == 0


HEADS: dict[str, tuple[dict[str, Any], Callable[[bytes], list[float]]]] = {
    "multilabel": (
        {"labels": LABELS, "head": "multilabel"},
        lambda data: [0.1, *(value / 255 for value in data[-5:-2])],
    ),
    "regression": (
        {"head": "regression", "quantity": {"name": "size", "lowest": 0, "highest": 1e6}},
        lambda data: [37.0 * len(data)],
    ),
}


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_is_compared_by_its_own_numbers(opened: Opened, kind: str) -> None:
    """Sets of labels, none among them, and scores: a good server passes, one that mixes them up does not."""
    card, answers = HEADS[kind]
    opened.card.write_text(json.dumps(card | {"input": "image"}))
    opened.server.answers = answers
    subject = opened.subject()
    assert {name: found(BY_NAME[name], subject).outcome for name in ("in order", "garbage", "at once")} == (
        dict.fromkeys(("in order", "garbage", "at once"), Outcome.PASSED)
    )
    opened.server.tamper = changed(lambda rows: rows[1:] + rows[:1])
    finding = found(BY_NAME["in order"], subject)
    assert (finding.outcome, "are answered differently" in finding.seen) == (Outcome.FAILED, True)
