"""Answers that a SageMaker batch transform has left: one file `NAME.out` for each image, judged one by one.

The job asks our serving container about each object of the input and keeps what it says, whatever that is. On
AWS an object whose request failed has no file and the job is called failed; SageMaker's local mode writes an
error's text into the file and calls the job completed. So neither the job's state nor a file is believed:
each is read as a reply of the handler (docs/reference/wire.md), and an image without one has failed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import fsspec
from typing_extensions import override

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault, ImagePayload, ModelApi, Reply
from imagebatch.model_apis.card import read_card
from imagebatch.model_apis.reply import parse_reply
from imagebatch.settings import ApiSettings
from imagebatch.stores import read_object

_SUFFIX = ".out"
_ONLY = "0"  # the id that the handler gives to a body which is one image


def connect(settings: ApiSettings, model: str, version: str) -> TransformOutput:
    """Return what answers from the files of `--transform-output`; they are looked for when they are needed.

    Raises:
        ConfigurationError: The model card cannot be read or names no digest, or the storage is not known.
    """
    return TransformOutput(settings, model, version)


class TransformOutput(ModelApi):
    """A model whose answers lie in files. Safe to call from several threads.

    Args:
        settings: Where the files are, and the model card, which must name labels and digest.
        model: Name of the model.
        version: Its version.
    """

    has_server = False

    def __init__(self, settings: ApiSettings, model: str, version: str) -> None:
        self._card = read_card(settings.model_card, model)
        if not self._card.digest:
            raise ConfigurationError(
                "--backend transform needs --model-card with the model's labels and digest: the file that"
                f" imagebatch-train writes beside the archive, {model}.json"
            )
        self._model, self._version = model, version
        self._uri = settings.transform_output.rstrip("/")
        self._fs: Any = None
        self._root = ""
        if self._uri:
            self._fs, self._root = _opened(self._uri)

    @override
    def describe(self) -> ModelPin:
        card = self._card
        return ModelPin(
            name=self._model,
            version=self._version,
            digest=card.digest,
            labels=card.labels,
            review=card.review,
            **dict(card.declaration(card.labels)),
        )

    @override
    def ready(self) -> None:
        fs = self._opened()
        try:
            fs.invalidate_cache()
            there = fs.exists(self._root)
        except Exception as error:
            raise ApiFaultError(Fault.UNREACHABLE, one_line(error, 200)) from error
        if not there:
            raise ApiFaultError(Fault.UNREACHABLE, f"there is no {self._uri}: has the transform job ended?")

    @override
    def predict(self, images: Sequence[ImagePayload], top_k: int) -> Reply:
        replies = [self._reply(image, top_k) for image in images]
        digests = {reply.digest for reply in replies}
        if len(digests) > 1:
            raise ApiFaultError(Fault.BAD_REPLY, "two models have answered in one transform")
        return Reply(digests.pop(), tuple(reply.answers[0] for reply in replies))

    def _opened(self) -> Any:
        if self._fs is None:
            raise ConfigurationError(
                "--backend transform scores from --transform-output, a folder of .out files"
            )
        return self._fs

    def _reply(self, image: ImagePayload, top_k: int) -> Reply:
        fs, name = self._opened(), image.name.decode("utf-8", "surrogateescape") + _SUFFIX
        try:
            body = read_object(fs, f"{self._root}/{name}")
        except FileNotFoundError as error:
            raise ApiFaultError(Fault.BAD_REPLY, f"the transform job left no {name}") from error
        except Exception as error:  # what a store's client raises is of no one kind
            raise ApiFaultError(Fault.UNREACHABLE, one_line(error, 200)) from error
        return _read(body, name, image, top_k)


def _opened(uri: str) -> tuple[Any, str]:
    try:
        fs, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"--transform-output {uri}: {error}") from error
    return fs, root


def _read(body: bytes, name: str, image: ImagePayload, top_k: int) -> Reply:
    """Read one file as the handler's reply to one image.

    Raises:
        ApiFaultError: It is none.
        ConfigurationError: The handler was not asked for so many labels.
    """
    given = _labels_in(body)
    if 0 < given < top_k:
        raise ConfigurationError(
            f"{name} has {given} labels: a transform job cannot ask for --top-k {top_k}; begin a run with"
            f" --top-k {given} or fewer"
        )
    try:
        reply = parse_reply(body, [dataclasses.replace(image, key=_ONLY)], given or top_k)
    except ApiFaultError as fault:
        raise ApiFaultError(fault.fault, f"{name}: {fault}") from fault
    return Reply(reply.digest, tuple(_cut(answer, top_k) if given else answer for answer in reply.answers))


def _labels_in(body: bytes) -> int:
    """Count the labels of a softmax's answer; 0 of anything else."""
    try:
        content = json.loads(body)
        (image,) = content["images"]
        return 0 if content.get("head", "softmax") != "softmax" else len(image.get("labels", ()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0


def _cut(answer: Answer, top_k: int) -> Answer:
    """Leave the most probable labels, of a softmax."""
    return dataclasses.replace(
        answer,
        labels=answer.labels[:top_k],
        probabilities=answer.probabilities[:top_k],
        classes=answer.classes[:top_k],
    )
