"""The Open Inference Protocol over REST, for models that take images as files or as pixels.

Servers differ where the protocol is silent. Triton takes raw bytes behind the JSON; KServe's and MLServer's
refuse files in them and take base64. Which one it is, the first image tells, unless --payload says it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import requests
from typing_extensions import override

from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.json_reply import read_object
from imagebatch.model_apis.oip.inputs import ImageInput, image_input, tensor_kind
from imagebatch.model_apis.oip.tensors import Given, Inference, files_tensor, read_inference, request_of
from imagebatch.model_apis.pixels.pool import Form, PixelMaker, maker_for
from imagebatch.model_apis.scores import Row, refused
from imagebatch.model_apis.served import Rows, Said, ServedModel
from imagebatch.settings import ApiSettings
from imagebatch.settings.values import GRPC_SCHEMES

FORMS = ("raw", "base64")
# Of the pixels in one request: what servers of gRPC take unless told otherwise, and enough images for speed.
_MOST_BYTES = 4 * 2**20 - 2**16
_WITH_BATCH = 2  # axes of a tensor that has one for the images
_NO_ROUTE = {requests.codes.not_found, requests.codes.method_not_allowed, requests.codes.not_implemented}


def connect(settings: ApiSettings, model: str, version: str) -> OpenInference:
    """Return a client for one model: over REST, or over gRPC where the URL says so.

    Raises:
        ConfigurationError: The extra for gRPC is not installed.
    """
    if not settings.api_url.startswith(GRPC_SCHEMES):
        return OpenInference(settings, model, version)
    missing = [name for name in ("grpc", "google.protobuf") if not _installed(name)]
    if missing:
        raise ConfigurationError(
            f"--api-url {settings.api_url} needs {', '.join(missing)}: install the extra, imagebatch[grpc]"
        )
    module = importlib.import_module("imagebatch.model_apis.oip.over_grpc")
    client: OpenInference = module.GrpcInference(settings, model, version)
    return client


def _installed(name: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(name) is not None
    return False


class OpenInference(ServedModel):
    """A client for one model of one server that speaks the Open Inference Protocol.

    Attributes:
        forms: Values of --payload in which pixels can be sent.
    """

    forms: ClassVar[tuple[str, ...]] = FORMS

    def __init__(self, settings: ApiSettings, model: str, version: str) -> None:
        super().__init__(settings, model, version)
        self._path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
        self._form: str = "" if settings.payload == "auto" else settings.payload
        self._settings = settings
        self._chosen: ImageInput | None = None
        self._maker: PixelMaker | None = None
        self._served_version = ""

    @override
    def said(self) -> Said:
        metadata = self.metadata()
        configured, most = self.configured()
        self._take_input(image_input(_tensors(metadata, "inputs"), self.card, self._model, most))
        versions = metadata.get("versions") or []
        self._served_version = self._version or (str(versions[-1]) if len(versions) == 1 else "")
        parameters = _told(metadata) | configured
        return Said(
            version=self._served_version,
            labels=_names(parameters.get("labels")),
            digest=str(parameters.get("digest") or ""),
            pixels=self.card.pixels if self._maker else None,
        )

    def metadata(self) -> Mapping[str, Any]:
        """Ask for the model's metadata."""
        answer = self.send("GET", self._path)
        if answer.status_code == requests.codes.not_implemented:
            raise ConfigurationError(
                f"the server knows no versions: leave --model-version empty (HTTP 501 {self.quoted(answer)})"
            )
        if answer.status_code == requests.codes.bad_request:  # Triton's, of a model that is not loaded
            raise ApiFaultError(Fault.OVERLOADED, f"HTTP 400 {self.quoted(answer)}")
        if answer.status_code != requests.codes.ok:
            raise self.fault_of(answer)
        return read_object(answer.content)

    @override
    def require_route_ready(self) -> None:
        answer = self.send("GET", f"{self._path}/ready")  # its body may be empty: the status tells
        if answer.status_code == requests.codes.ok or answer.status_code in _NO_ROUTE:
            return
        raise ApiFaultError(Fault.OVERLOADED, f"not ready: HTTP {answer.status_code} {self.quoted(answer)}")

    @override
    def rows(self, images: Sequence[ImagePayload]) -> Rows:
        if not self._chosen:
            self.said()
        return self._asked(images, self._form or self._find_form())

    @override
    def close(self) -> None:
        self._maker = self._chosen = None  # its processes end when no endpoint holds it any more

    def _find_form(self) -> str:
        """Find out in which form the server takes an image."""
        faults = []
        for form in self.forms if self._maker else FORMS:
            try:
                found = self._asked([self.pictures[0]], form).rows
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

    def _asked(self, images: Sequence[ImagePayload], form: str) -> Rows:
        chosen, maker = self._require_chosen(), self._maker
        if maker:
            json_too = form in self.forms and form != "raw"  # whatever --payload says of files
            return self._of_pixels(images, chosen, maker, "json" if json_too else "raw")
        shape = [len(images), 1] if chosen.columns else [len(images)]
        files = [image.data for image in images]
        return self._inferred(files_tensor(chosen.name, shape, files, raw=form == "raw"), len(images))

    def _of_pixels(
        self, images: Sequence[ImagePayload], chosen: ImageInput, maker: PixelMaker, form: Form
    ) -> Rows:
        """Send the pixels of the images, so many at once that a request stays small.

        While one request is out, the pixels of the next are made: neither this machine nor the server waits.
        """
        most = min(chosen.most or len(images), max(1, _MOST_BYTES // maker.size(form)))
        requests_ = max(1, -(-len(images) // most))
        edges = [len(images) * edge // requests_ for edge in range(requests_ + 1)]
        pieces = [images[start:end] for start, end in itertools.pairwise(edges)]
        rows: list[Row] = []
        digests: set[str] = set()
        with ThreadPoolExecutor(1) as ahead:
            making = ahead.submit(maker.make, pieces[0], form)
            for following in (*pieces[1:], None):
                made = making.result()
                if following is not None:
                    making = ahead.submit(maker.make, following, form)
                found: list[Row] = []
                if made.count:
                    shape = [made.count, *maker.shape] if chosen.batched else maker.shape
                    given = Given(chosen.name, chosen.datatype, shape, form == "raw", content=made.contents)
                    answered = self._inferred(given, made.count)
                    digests.add(answered.digest)
                    found = list(answered.rows)
                rest = iter(found)
                rows += [next(rest) if refusal is None else refusal for refusal in made.refusals]
        if len(digests) > 1:
            raise ApiFaultError(Fault.BAD_REPLY, "two models answered at once")
        return Rows(rows, digests.pop() if digests else "")

    def _inferred(self, given: Given, count: int) -> Rows:
        identity = secrets.token_hex(8)  # KServe's server fails without one
        found = self.inference(identity, given)
        if found.identity not in {"", identity}:
            raise ApiFaultError(Fault.BAD_REPLY, "the answer to another request")
        self._require_version(found)
        return Rows(_rows(found, self.card.output, count), str(found.parameters.get("digest") or ""))

    def inference(self, identity: str, given: Given) -> Inference:
        """Send one request."""
        request = request_of(identity, given)
        answer = self.send("POST", f"{self._path}/infer", data=request.body, headers=request.headers)
        if answer.status_code != requests.codes.ok:
            raise self._refusal(answer)
        return read_inference(answer.headers, answer.content)

    def _refusal(self, answer: requests.Response) -> Exception:
        if answer.status_code == requests.codes.bad_request:
            if "batch-size must be" in answer.text:  # Triton's, of more images than max_batch_size
                return ApiFaultError(Fault.TOO_LARGE, f"HTTP 400 {self.quoted(answer)}")
            if "is not ready" in answer.text or "unknown model" in answer.text.lower():
                return ApiFaultError(Fault.OVERLOADED, f"HTTP 400 {self.quoted(answer)}")
        return self.fault_of(answer)

    def _require_version(self, found: Inference) -> None:
        if self._served_version and found.version not in {"", self._served_version}:
            raise ApiFaultError(
                Fault.BAD_REPLY, f"version {one_line(found.version, 40)} answered, not {self._served_version}"
            )

    def _take_input(self, chosen: ImageInput) -> None:
        """Keep which tensor takes the images, and what makes its pixels if it takes these."""
        if chosen == self._chosen:
            return
        pixels = self.card.pixels
        wanted = chosen.datatype != "BYTES" and pixels
        self._maker = maker_for(pixels, *tensor_kind(chosen), self._settings) if wanted and pixels else None
        self._chosen = chosen

    def _require_chosen(self) -> ImageInput:
        if self._chosen is None:
            raise ApiFaultError(Fault.UNREACHABLE, "the client is closed")
        return self._chosen

    def configured(self) -> tuple[dict[str, Any], int]:
        """Return the parameters of Triton's model configuration, and its batch size; of others, none."""
        answer = self.send("GET", f"{self._path}/config")
        if answer.status_code != requests.codes.ok:
            return {}, 0
        try:
            return _configuration(read_object(answer.content))
        except ApiFaultError:
            return {}, 0


def _configuration(found: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    try:
        parameters = found.get("parameters") or {}
        texts = {name: value["string_value"] for name, value in parameters.items() if "string_value" in value}
        return texts, max(0, int(found.get("max_batch_size") or 0))
    except (TypeError, AttributeError, ValueError):
        return {}, 0


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
