"""What the scorer asks of any model API, and the ways in which an API may fail it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

from imagebatch.contracts.answers import Answer
from imagebatch.contracts.records import ModelPin

__all__ = ["PROBE", "Answer", "ApiFaultError", "Fault", "ImagePayload", "ModelApi", "Reply"]


@dataclass(frozen=True, slots=True)
class ImagePayload:
    """One image of a request.

    Attributes:
        key: Unique in the request; the answer must repeat it.
        data: The file's bytes.
        embed: Whether its embedding is wanted too. Ask only an API whose description says that it gives any.
        page: The page or frame of the file that is meant, from 1; 0: the one that the model declares. Name
            one only to an API whose description says that it looks at `pages`.
        name: The file's name within the input, as bytes; empty where it is no image of a run. Only an API
            whose answers lie in files looks at it.
    """

    key: str
    data: bytes
    embed: bool = False
    page: int = 0
    name: bytes = b""


# A grey PNG of 8x8: whatever the model makes of it, an answer shows that the server can answer.
PROBE = ImagePayload(
    "probe",
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNsYIAAJgaKGAAmCACQtTEKkQAAAABJRU5ErkJggg=="
    ),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers to one request, in its order, and the digest of the model that gave them."""

    digest: str
    answers: tuple[Answer, ...]


class Fault(StrEnum):
    """How a whole request failed; decides what the scorer does next."""

    UNREACHABLE = "unreachable"  # nobody answered: wait, then the same again
    OVERLOADED = "overloaded"  # asked to come back later: wait, then the same again
    WORKER_DIED = "worker_died"  # an image of this request may be the cause: again, then halves
    TIMED_OUT = "timed_out"  # an image of this request may be the cause: again, then halves
    BAD_REPLY = "bad_reply"  # an answer that cannot be trusted: again, then halves
    TOO_LARGE = "too_large"  # halves


class ApiFaultError(Exception):
    """A request that brought no answers.

    Attributes:
        fault: How it failed.
        retry_after: Seconds that the server asked to wait; 0 if it did not say.
    """

    def __init__(self, fault: Fault, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.retry_after = retry_after


class ModelApi(Protocol):
    """A served model. Safe to call from several threads. An implementation derives from it.

    Embeddings are a capability that an API may lack: it then describes its model without `embedding`, ignores
    `ImagePayload.embed`, and answers without them. Pages are another: without `pages` in its description it
    is asked about whole files only.

    Attributes:
        has_server: Whether a server answers, whose own rate can be measured.
    """

    has_server: ClassVar[bool] = True

    def describe(self) -> ModelPin:
        """Return the served model's name, version, digest, labels and head.

        Raises:
            ApiFaultError: No answer.
            ConfigurationError: Unknown model, or credentials refused.
        """

    def ready(self) -> None:
        """Return if the API can answer: its server is up and a worker of the model replies.

        Raises:
            ApiFaultError: It cannot.
        """

    def predict(self, images: Sequence[ImagePayload], top_k: int) -> Reply:
        """Answer for every image, in order.

        Raises:
            ApiFaultError: No answers that can be trusted.
            ConfigurationError: Unknown model, or credentials refused.
        """

    def prepared(self, images: Sequence[ImagePayload], top_k: int) -> Callable[[], Reply]:
        """Return a call that predicts the images, as often as it is made.

        An API that can make its request once does so here, so that the call measures the server alone.
        """
        return lambda: self.predict(images, top_k)

    def close(self) -> None:
        """End what was started for it, if anything was."""
        return
