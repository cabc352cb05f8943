"""The handler's replies as JSON (docs/reference/wire.md); nothing in them is trusted before it is checked."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from imagebatch_header import View
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagebatch.contracts.records import HeadKind, ModelPin
from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault, ImagePayload, Reply


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str
    version: str
    digest: str


class _Description(BaseModel):
    model: _Model
    labels: list[str]
    engine: str = ""
    embedding: int = 0
    memory: bool = False
    pages: bool = False
    input: dict[str, Any] = Field(default_factory=dict)
    head: str = HeadKind.SOFTMAX
    thresholds: list[float] = []
    quantity: dict[str, Any] | None = None
    review: float | None = None


class _Error(BaseModel):
    reason: str = Field(min_length=1)
    detail: str = ""


class _Image(BaseModel):
    id: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    classes: tuple[int, ...] = ()
    embedding: str = ""
    score: float | None = None
    page: int = 0
    error: _Error | None = None


class _Reply(BaseModel):
    model: _Model
    head: str = HeadKind.SOFTMAX
    images: list[_Image]


def parse_description(body: bytes) -> ModelPin:
    """Return the model that a description names.

    Raises:
        ApiFaultError: It is none.
        ConfigurationError: The model sees files in a way, or has a head, that is not known here.
    """
    try:
        found = _Description.model_validate_json(body)
    except ValidationError as error:
        raise ApiFaultError(Fault.BAD_REPLY, f"no description: {body[:100]!r}") from error
    try:
        return ModelPin(
            name=found.model.name,
            version=found.model.version,
            digest=found.model.digest,
            labels=found.labels,
            engine=found.engine,
            embedding=found.embedding,
            pages=found.pages,
            view=_view(found.input),
            head=HeadKind(found.head),
            thresholds=found.thresholds,
            quantity=found.quantity,  # type: ignore[arg-type]  # pydantic reads it
            review=found.review,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"the model declares a head that this version of imagebatch cannot do: {_first_line(error)}"
        ) from error


def _first_line(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return one_line(error, 200)
    first = error.errors()[0]
    return one_line(f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip(), 200)


def _view(described: dict[str, Any]) -> dict[str, str | int]:
    """Return what a description's `input` says of how files are seen.

    Raises:
        ConfigurationError: Something that this version does not know: the checks would see other pixels.
    """
    known = {field.name for field in fields(View)}
    try:
        return View(**{name: value for name, value in described.items() if name in known}).declared()
    except (TypeError, ValueError) as error:
        message = f"the model declares what this version of imagebatch cannot do: {error}"
        raise ConfigurationError(message) from error


def opens_memory(description: bytes) -> bool:
    """Tell whether the server that described itself has opened the memory that it was offered."""
    return _Description.model_validate_json(description).memory


def asking_headers(images: Sequence[ImagePayload], top_k: int) -> dict[str, str]:
    """Return the request headers that say what is wanted of each image."""
    wanted = [str(position) for position, image in enumerate(images) if image.embed]
    headers = {"X-Top-K": str(top_k)} | ({"X-Embeddings": ",".join(wanted)} if wanted else {})
    if any(image.page for image in images):
        headers["X-Pages"] = ",".join(str(image.page) for image in images)
    return headers


def parse_reply(body: bytes, images: Sequence[ImagePayload], top_k: int) -> Reply:
    """Return the answers of a reply, one per image, in order.

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
    if [image.page for image in reply.images] != [image.page for image in images]:
        raise ApiFaultError(Fault.BAD_REPLY, "answers about other pages than those that were asked about")
    pairs = zip(reply.images, images, strict=True)
    return Reply(
        reply.model.digest,
        tuple(_answer(image, reply.head, top_k, embed=asked.embed) for image, asked in pairs),
    )


def _answer(image: _Image, head: str, top_k: int, *, embed: bool) -> Answer:
    """Return one image's answer; whether its model can have given it, the scorer decides."""
    if image.error is not None:
        return Answer(reason=image.error.reason, detail=one_line(image.error.detail, 200))
    values = image.probabilities
    if head == HeadKind.REGRESSION:
        possible = image.score is not None and math.isfinite(image.score)
    else:
        possible = image.score is None and all(0.0 <= value <= 1.0 for value in values)  # false for NaN too
    if head == HeadKind.SOFTMAX:
        falling = all(a >= b for a, b in itertools.pairwise(values))
        possible = possible and falling and len(values) == len(image.labels) == top_k
    if not possible:
        what = (
            f"a score that cannot be: {image.score}"
            if head == HeadKind.REGRESSION
            else (f"labels and probabilities that cannot be: {values[:5]}")
        )
        raise ApiFaultError(Fault.BAD_REPLY, what)
    return Answer(
        labels=image.labels,
        probabilities=values,
        classes=image.classes,
        score=image.score,
        embedding=_embedding(image.embedding) if embed else b"",
    )


def _embedding(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
        finite = bool(np.isfinite(np.frombuffer(found, "<f4")).all())
    except ValueError:
        finite = False
    if not finite:
        raise ApiFaultError(Fault.BAD_REPLY, f"an embedding that cannot be: {text[:40]!r}")
    return found
