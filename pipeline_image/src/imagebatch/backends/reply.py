"""The handler's replies as JSON (docs/reference/wire.md), read with suspicion: whoever carried them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagebatch.backends.base import Answer, ApiFaultError, Fault, ImagePayload, Reply
from imagebatch.contracts import ModelPin
from imagebatch.errors import one_line


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str
    version: str
    digest: str


class _Description(BaseModel):
    model: _Model
    labels: list[str]
    engine: str = ""


class _Error(BaseModel):
    reason: str = Field(min_length=1)
    detail: str = ""


class _Image(BaseModel):
    id: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: _Error | None = None


class _Reply(BaseModel):
    model: _Model
    images: list[_Image]


def parse_description(body: bytes) -> ModelPin:
    """The model that a description names.

    Raises:
        ApiFaultError: It is none.
    """
    try:
        found = _Description.model_validate_json(body)
    except ValidationError as error:
        raise ApiFaultError(Fault.BAD_REPLY, f"no description: {body[:100]!r}") from error
    return ModelPin(
        name=found.model.name,
        version=found.model.version,
        digest=found.model.digest,
        labels=found.labels,
        engine=found.engine,
    )


def parse_reply(body: bytes, images: Sequence[ImagePayload], top_k: int) -> Reply:
    """The answers of a reply, one per image, in order.

    Raises:
        ApiFaultError: They are not the answers to these images, or cannot be.
    """
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as error:
        raise ApiFaultError(Fault.BAD_REPLY, f"not the expected JSON: {body[:80]!r}") from error
    if [image.id for image in reply.images] != [image.key for image in images]:
        raise ApiFaultError(
            Fault.BAD_REPLY, f"{len(reply.images)} answers that do not match {len(images)} images"
        )
    return Reply(reply.model.digest, tuple(_answer(image, top_k) for image in reply.images))


def _answer(image: _Image, top_k: int) -> Answer:
    if image.error is not None:
        return Answer(reason=image.error.reason, detail=one_line(image.error.detail, 200))
    values = image.probabilities
    falling = all(a >= b for a, b in itertools.pairwise(values))
    in_range = all(0.0 <= value <= 1.0 for value in values)  # false for NaN too
    if not (len(values) == len(image.labels) == top_k and falling and in_range):
        raise ApiFaultError(Fault.BAD_REPLY, f"labels and probabilities that cannot be: {values[:5]}")
    return Answer(labels=image.labels, probabilities=values)
