"""The golden images: a few images with known answers, asked about before the first row of a run.

The file is made with the archive and lies beside it. It catches what a digest cannot: another CPU, library
or setting under which the same files give other answers.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable
from typing import Self

import fsspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ConfigurationError, ModelChangedError
from imagebatch.heads import head_of
from imagebatch.heads.base import Head
from imagebatch.log import get_logger
from imagebatch.model_apis.base import Answer, ImagePayload, ModelApi
from imagebatch.model_apis.retry import patiently
from imagebatch.scorer.packs import PackScorer

log = get_logger()


class GoldenImage(BaseModel):
    """One image (base64) and the answer expected, with the keys of the handler's replies."""

    model_config = ConfigDict(extra="forbid")

    name: str
    b64: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    classes: tuple[int, ...] = ()
    score: float | None = None

    @model_validator(mode="after")
    def _an_answer(self) -> Self:
        if self.score is None and not self.probabilities:
            msg = "an image needs labels and probabilities, or a score"
            raise ValueError(msg)
        return self

    @property
    def expected(self) -> Answer:
        """The answer."""
        return Answer(
            labels=self.labels, probabilities=self.probabilities, classes=self.classes, score=self.score
        )


class GoldenSet(BaseModel):
    """The file: which model it belongs to, how far answers may be off, and the images.

    Of a score, `tolerance` is a share of the range that its quantity declares; without one of the score, or
    of one unit where that is more.
    """

    model_config = ConfigDict(extra="forbid")

    model_digest: str
    tolerance: float = Field(gt=0, lt=1)
    images: list[GoldenImage] = Field(min_length=1)

    @property
    def payloads(self) -> list[ImagePayload]:
        """The images as a request takes them."""
        return [
            ImagePayload(f"{position}-golden", base64.b64decode(image.b64))
            for position, image in enumerate(self.images)
        ]


def golden_uri(template: str, pin: ModelPin) -> str:
    """Return the file for a model, `{model}` in the setting replaced; empty where there is none.

    Versions that lie side by side have files of their own: that of `<name>-<version>` comes before that of
    the name.
    """
    if "{model}" not in template:
        return template
    for name in (f"{pin.name}-{pin.version}", pin.name):
        uri = template.replace("{model}", name)
        filesystem, path = fsspec.core.url_to_fs(uri)
        if filesystem.exists(path):
            return uri
    log.info("no golden images for this model", looked_for=uri)
    return ""


def probe(uri: str, packs: PackScorer, pin: ModelPin) -> None:
    """Asks about the golden images and compares.

    Raises:
        ConfigurationError: The file cannot be read, or belongs to another model.
        ModelChangedError: An answer is not the expected one.
    """
    golden = _load(uri, pin)
    _compare_all(golden, pin, itertools.chain.from_iterable(packs.score(golden.payloads)))


def probe_version(uri: str, api: ModelApi, seconds: float) -> tuple[ModelPin, int]:
    """Ask one version of a model about the golden images, before any run does.

    Args:
        uri: The file.
        api: Connected to the version.
        seconds: To wait for a server that does not answer.

    Returns:
        What the server says of the version, and the number of images.

    Raises:
        ConfigurationError: The file cannot be read, or belongs to another archive.
        ModelChangedError: An answer is not the expected one.
        ModelApiUnavailableError: The server does not answer.
    """
    pin = patiently(api.describe, seconds)
    golden = _load(uri, pin)
    reply = patiently(lambda: api.predict(golden.payloads, max(1, len(pin.labels))), seconds)
    _compare_all(golden, pin, reply.answers)
    return pin, len(golden.images)


def _compare_all(golden: GoldenSet, pin: ModelPin, answers: Iterable[Answer]) -> None:
    head = head_of(pin, len(pin.labels))
    for image, answer in zip(golden.images, answers, strict=True):
        _compare(head, image, answer, golden.tolerance)
    log.info("golden images answered as expected", images=len(golden.images), tolerance=golden.tolerance)


def _load(uri: str, pin: ModelPin) -> GoldenSet:
    try:
        with fsspec.open(uri, "rb") as stream:
            golden = GoldenSet.model_validate_json(stream.read())
    except (OSError, ValueError, ValidationError) as error:
        raise ConfigurationError(f"--golden {uri}: {error}") from error
    if golden.model_digest != pin.digest:
        raise ConfigurationError(
            f"--golden {uri} belongs to {golden.model_digest}, the served model is {pin.digest}"
        )
    return golden


def _compare(head: Head, image: GoldenImage, answer: Answer, tolerance: float) -> None:
    if answer.reason or head.off(image.expected, answer) > tolerance:
        raise ModelChangedError(
            f"golden image {image.name}: expected {head.words(image.expected)},"
            f" got {answer.reason or head.words(answer)};"
            " the server does not compute what it did when the archive was made"
        )
