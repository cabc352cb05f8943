"""What checks act on, and what becomes of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ImagebatchError, one_line
from imagebatch.heads import head_of
from imagebatch.heads.base import Head
from imagebatch.model_apis.base import Answer, ApiFaultError, ImagePayload, ModelApi

_LONGEST_TEXT = 300


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class NotKeptError(Exception):
    """The server does something that a run cannot rely on."""


class SkippedError(Exception):
    """The check would show nothing here, or was not asked for; the text says why."""


@dataclass(frozen=True)
class Subject:
    """A server under test, and how far a check may go.

    Attributes:
        connect: Opens a new client for the model of this name.
        api: A client for the model itself.
        pin: What the model was when the checks began.
        images: Files that the model can read, at least two.
        top_k: Labels per image, no more than the model has.
        names_models: Whether requests carry the model's name, so that another one can be asked for.
        most: Requests at once; 0: load was not asked for.
        largest: Bytes of the largest request.
        patience: Seconds until an answer that was asked to come later must be there.
        restart: Restarts the server, and returns when that has been done; None if nobody has said how.
    """

    connect: Callable[[str], ModelApi]
    api: ModelApi
    pin: ModelPin
    images: Sequence[bytes]
    top_k: int
    names_models: bool = True
    most: int = 8
    largest: int = 16 << 20
    patience: float = 120.0
    restart: Callable[[], None] | None = None

    @property
    def head(self) -> Head:
        """What the model's numbers mean."""
        return head_of(self.pin, self.top_k)

    def payloads(self, images: Sequence[bytes] | None = None) -> list[ImagePayload]:
        """Return images, all of the subject's if none are named, as one request takes them."""
        chosen = self.images if images is None else images
        return [ImagePayload(f"{position}-check", data) for position, data in enumerate(chosen)]

    def answers(self, images: Sequence[bytes] | None = None) -> tuple[Answer, ...]:
        """Ask about images in one request."""
        return self.api.predict(self.payloads(images), self.top_k).answers

    def alone(self, image: bytes) -> Answer:
        """Ask about one image."""
        return self.answers([image])[0]


@dataclass(frozen=True)
class Check:
    """One thing that a run relies on.

    Attributes:
        name: A word or two.
        says: The sentence that must be true.
        act: Finds out; returns what it has seen.
    """

    name: str
    says: str
    act: Callable[[Subject], str]


@dataclass(frozen=True)
class Finding:
    """What became of a check; `seen` is one line, safe to print."""

    check: str
    says: str
    outcome: Outcome
    seen: str
    seconds: float


def found(check: Check, subject: Subject) -> Finding:
    """Carry out a check; a fault that it does not expect is its failure."""
    begun = time.monotonic()
    outcome = Outcome.PASSED
    try:
        seen = check.act(subject)
    except SkippedError as reason:
        outcome, seen = Outcome.SKIPPED, str(reason)
    except (NotKeptError, ApiFaultError, ImagebatchError) as error:
        outcome, seen = Outcome.FAILED, str(error)
    return Finding(
        check.name, check.says, outcome, one_line(seen, _LONGEST_TEXT), round(time.monotonic() - begun, 2)
    )
