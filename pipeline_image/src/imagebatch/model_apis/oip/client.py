"""The Open Inference Protocol over REST, for models that take images as files (docs/reference/model-apis.md).

Servers differ where the protocol is silent. Triton takes raw bytes behind the JSON; KServe's and MLServer's
refuse them and take base64. Which one it is, the first image tells, unless --payload says it.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from typing_extensions import override

from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.oip.tensors import Inference, Request, raw_request, read_inference, text_request
from imagebatch.model_apis.pinning import pictures
from imagebatch.model_apis.scores import Row, refused
from imagebatch.model_apis.served import Rows, Said, ServedModel, read_object
from imagebatch.settings import ApiSettings

_FORMS = {"raw": raw_request, "base64": text_request}
_NO_ROUTE = {requests.codes.not_found, requests.codes.method_not_allowed, requests.codes.not_implemented}
_WITH_BATCH = 2


def connect(settings: ApiSettings, model: str, version: str) -> OpenInference:
    """Return a client for one model."""
    return OpenInference(settings, model, version)


class OpenInference(ServedModel):
    """A client for one model of one server that speaks the Open Inference Protocol."""

    def __init__(self, settings: ApiSettings, model: str, version: str) -> None:
        super().__init__(settings, model, version)
        self._path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
        self._form: str = "" if settings.payload == "auto" else settings.payload
        self._input = self.card.input
        self._columns = False  # of a batch's elements, as Triton's [n, 1]
        self._served_version = ""

    @override
    def said(self) -> Said:
        answer = self.send("GET", self._path)
        if answer.status_code == requests.codes.not_implemented:
            raise ConfigurationError(
                f"the server knows no versions: leave --model-version empty (HTTP 501"
                f" {one_line(answer.text, 80)})"
            )
        if answer.status_code == requests.codes.bad_request:  # Triton's, of a model that is not loaded
            raise ApiFaultError(Fault.OVERLOADED, f"HTTP 400 {one_line(answer.text, 160)}")
        if answer.status_code != requests.codes.ok:
            raise self.fault_of(answer)
        metadata = read_object(answer.content)
        self._take_input(_tensors(metadata, "inputs"))
        versions = metadata.get("versions") or []
        self._served_version = self._version or (str(versions[-1]) if len(versions) == 1 else "")
        parameters = _told(metadata) | self._configured()
        return Said(
            version=self._served_version,
            labels=_names(parameters.get("labels")),
            digest=str(parameters.get("digest") or ""),
        )

    @override
    def require_route_ready(self) -> None:
        answer = self.send("GET", f"{self._path}/ready")  # its body may be empty: the status tells
        if answer.status_code == requests.codes.ok or answer.status_code in _NO_ROUTE:
            return
        raise ApiFaultError(
            Fault.OVERLOADED, f"not ready: HTTP {answer.status_code} {one_line(answer.text, 160)}"
        )

    @override
    def rows(self, images: Sequence[ImagePayload]) -> Rows:
        return self._inferred(images, self._form or self._find_form())

    def _find_form(self) -> str:
        """Find out in which form the server takes an image."""
        faults = []
        for form in _FORMS:
            try:
                found = self._inferred([pictures()[0]], form).rows
            except ApiFaultError as fault:
                if fault.fault not in {Fault.BAD_REPLY, Fault.WORKER_DIED}:
                    raise
                faults.append(f"{form}: {fault}")
            else:
                if not any(isinstance(row, Answer) and row.reason for row in found):
                    self._form = form
                    return form
                faults.append(f"{form}: an image is refused")
        raise ApiFaultError(
            Fault.WORKER_DIED, f"the model answers in neither form of --payload: {'; '.join(faults)}"
        )

    def _inferred(self, images: Sequence[ImagePayload], form: str) -> Rows:
        if not self._input:
            self.said()
        identity = secrets.token_hex(8)  # KServe's server fails without one
        shape = [len(images), 1] if self._columns else [len(images)]
        request: Request = _FORMS[form](identity, self._input, shape, [image.data for image in images])
        answer = self.send("POST", f"{self._path}/infer", data=request.body, headers=request.headers)
        if answer.status_code != requests.codes.ok:
            raise self._refusal(answer)
        found = read_inference(answer.headers, answer.content)
        if found.identity not in {"", identity}:
            raise ApiFaultError(Fault.BAD_REPLY, "the answer to another request")
        self._require_version(found)
        return Rows(_rows(found, self.card.output, len(images)), str(found.parameters.get("digest") or ""))

    def _refusal(self, answer: requests.Response) -> Exception:
        if answer.status_code == requests.codes.bad_request:
            if "batch-size must be" in answer.text:  # Triton's, of more images than max_batch_size
                return ApiFaultError(Fault.TOO_LARGE, f"HTTP 400 {one_line(answer.text, 160)}")
            if "is not ready" in answer.text or "unknown model" in answer.text.lower():
                return ApiFaultError(Fault.OVERLOADED, f"HTTP 400 {one_line(answer.text, 160)}")
        return self.fault_of(answer)

    def _require_version(self, found: Inference) -> None:
        if self._served_version and found.version not in {"", self._served_version}:
            raise ApiFaultError(
                Fault.BAD_REPLY, f"version {one_line(found.version, 40)} answered, not {self._served_version}"
            )

    def _take_input(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Choose the tensor that takes the images."""
        named = [tensor for tensor in inputs if self.card.input in {"", tensor.get("name")}]
        if not inputs:
            self._input = self._input or "image"  # KServe's, which need not say
            return
        if len(named) != 1:
            names = ", ".join(str(tensor.get("name")) for tensor in inputs)
            raise ConfigurationError(
                f"{self._model} takes the tensors {names}: say which takes the images in --model-card,"
                ' "input"'
            )
        (tensor,) = named
        if tensor.get("datatype") != "BYTES":
            raise ConfigurationError(
                f"{self._model} takes {tensor.get('datatype')} {tensor.get('shape')} and not images as files"
                " (BYTES): serve it behind a step that decodes them"
            )
        self._input = str(tensor["name"])
        self._columns = len(tensor.get("shape") or []) == _WITH_BATCH

    def _configured(self) -> dict[str, Any]:
        """Return the parameters of Triton's model configuration; of another server, none."""
        answer = self.send("GET", f"{self._path}/config")
        if answer.status_code != requests.codes.ok:
            return {}
        try:
            found = read_object(answer.content).get("parameters") or {}
            return {name: value["string_value"] for name, value in found.items() if "string_value" in value}
        except (ApiFaultError, TypeError, AttributeError):
            return {}


def _tensors(metadata: Mapping[str, Any], side: str) -> list[Mapping[str, Any]]:
    found = metadata.get(side) or []
    if not isinstance(found, list) or not all(isinstance(tensor, dict) for tensor in found):
        raise ApiFaultError(Fault.BAD_REPLY, f"metadata whose {side} are none")
    return found


def _told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Put the parameters of a model and of its tensors together."""
    tensors = itertools.chain(_tensors(metadata, "inputs"), _tensors(metadata, "outputs"))
    merged: dict[str, Any] = {}
    for holder in (*tensors, metadata):
        parameters = holder.get("parameters") or {}
        merged |= parameters if isinstance(parameters, dict) else {}
    return merged


def _names(found: Any) -> tuple[str, ...]:
    """Return labels that stand in metadata: a list, its JSON, or names with commas between them."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = [name.strip() for name in found.split(",") if name.strip()]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        return ()
    return tuple(found)


def _rows(found: Inference, output: str, count: int) -> list[Row]:
    """Return a row for each image out of a reply's tensors.

    A tensor `error` of texts, one an image, tells which images the model refused (empty: not), and why.
    """
    scores = found.outputs.get(output) if output else _only_scores(found)
    if scores is None or scores.numbers is None:
        names = ", ".join(f"{name} {tensor.datatype}" for name, tensor in found.outputs.items())
        raise ApiFaultError(
            Fault.BAD_REPLY,
            f"which output has a number per class? there are {one_line(names, 120)}; name it in --model-card,"
            ' "output"',
        )
    numbers = scores.numbers
    if numbers.ndim < _WITH_BATCH:  # a score for each image, or the numbers of one image
        numbers = numbers.reshape(-1, 1) if numbers.size == count else numbers.reshape(1, -1)
    if len(numbers) != count:
        raise ApiFaultError(Fault.BAD_REPLY, f"an output of shape {scores.shape} for {count} images")
    numbers = numbers.reshape(count, -1)
    errors = found.outputs.get("error")
    texts = errors.texts if errors and errors.texts and len(errors.texts) == count else ("",) * count
    return [refused(text) if text else row for text, row in zip(texts, numbers, strict=True)]


def _only_scores(found: Inference) -> Any:
    numeric = [tensor for tensor in found.outputs.values() if tensor.numbers is not None]
    return numeric[0] if len(numeric) == 1 else found.outputs.get("probabilities")
