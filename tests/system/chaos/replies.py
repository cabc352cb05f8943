"""A server, or something in front of it, that lies, stammers or hangs up."""

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.system.chaos.ground import Ground, scenario
from tests.system.chaos.runs import Result
from tests.system.kit.verdict import require

_HTML = Wrong(
    200, b"<!DOCTYPE html><title>Sorry</title><p>We are back in a moment.", {"Content-Type": "text/html"}
)


class Sometimes:
    """Spoils a share of the replies to predictions, at random but the same ones every time.

    Args:
        share: Of all replies, 0 to 1.
        spoil: Makes the reply that is sent out of the server's own.
    """

    def __init__(self, share: float, spoil: Callable[[Wrong], Wrong]) -> None:
        self._share = share
        self._spoil = spoil
        self._random = random.Random(20)
        self._lock = threading.Lock()
        self.spoilt = 0

    def __call__(self, asked: Asked, reply: Wrong) -> Wrong:
        with self._lock:
            if reply.status != 200 or not asked.scores or self._random.random() >= self._share:
                return reply
            self.spoilt += 1
        return self._spoil(reply)


def endure(ground: Ground, name: str, spoil: Callable[[Wrong], Wrong]) -> Result:
    """Score through a relay that spoils a third of the replies."""
    sometimes = Sometimes(1 / 3, spoil)
    with Relay(ground.server.inference, after=sometimes) as relay:
        run = ground.prepared(name, api_url=relay.url)
        run.score()
        require(sometimes.spoilt >= 5, f"only {sometimes.spoilt} replies were spoilt")
        return run.settle(f"{sometimes.spoilt} of {relay.requests} replies")


def _changed(change: Callable[[list[Any]], list[Any]]) -> Callable[[Wrong], Wrong]:
    def spoil(reply: Wrong) -> Wrong:
        content = json.loads(reply.body)
        content["images"] = change(content["images"])
        return Wrong(200, json.dumps(content).encode(), reply.headers)

    return spoil


@scenario
def wrong_count(ground: Ground) -> Result:
    """A third of the replies lack an answer, or have one twice."""
    turn = random.Random(1)
    return endure(
        ground,
        "wrong-count",
        _changed(lambda images: images[:-1] if turn.random() < 0.5 else images + images[:1]),
    )


@scenario
def shuffled_answers(ground: Ground) -> Result:
    """A third of the replies have their answers in another order."""
    return endure(ground, "shuffled-answers", _changed(lambda images: images[1:] + images[:1]))


@scenario
def reply_for_others(ground: Ground) -> Result:
    """A third of the replies are those to an earlier request, about other images."""
    earlier: list[Wrong] = []

    def spoil(reply: Wrong) -> Wrong:
        earlier.append(reply)
        return earlier[0] if len(earlier) > 1 else _HTML

    return endure(ground, "reply-for-others", spoil)


@scenario
def truncated_reply(ground: Ground) -> Result:
    """A third of the replies end in the middle: half of them with a length that says so, half without."""
    turn = random.Random(2)

    def spoil(reply: Wrong) -> Wrong:
        if turn.random() < 0.5:
            return Wrong(200, reply.body, reply.headers, half=True)
        return Wrong(200, reply.body[: len(reply.body) // 2], reply.headers)

    return endure(ground, "truncated-reply", spoil)


@scenario
def html_page(ground: Ground) -> Result:
    """For 8 s every reply is status 200 with an HTML page."""
    return _page_for(ground, "html-page", 8.0, lambda _: True)


@scenario
def html_page_for_predictions(ground: Ground) -> Result:
    """For 8 s every prediction is status 200 with an HTML page, while the model's description is right."""
    return _page_for(ground, "html-page-for-predictions", 8.0, lambda asked: asked.scores)


def _page_for(ground: Ground, name: str, seconds: float, meant: Callable[[Asked], bool]) -> Result:
    begun: list[float] = []
    pages: list[int] = []

    def before(asked: Asked) -> Wrong | None:
        if asked.number > 10:
            begun.append(time.monotonic())
        if not begun or time.monotonic() > begun[0] + seconds or not meant(asked):
            return None
        pages.append(asked.number)
        return _HTML

    with Relay(ground.server.inference, before=before) as relay:
        run = ground.prepared(name, api_url=relay.url)
        run.score()
        require(pages, "no page was sent")
        return run.settle(f"{len(pages)} pages")


@scenario
def connection_reset(ground: Ground) -> Result:
    """A third of the connections are reset in the middle of the reply, after the server has done its work."""
    return endure(ground, "connection-reset", lambda reply: Wrong(200, reply.body, reply.headers, reset=True))
