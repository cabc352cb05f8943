"""The Open Inference Protocol over gRPC. Needs the extra `grpc`.

One channel serves all threads. What goes wrong is a status code, and means what it means over REST.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from typing_extensions import override

from imagebatch.errors import ConfigurationError, UnknownModelError, one_line
from imagebatch.model_apis.base import ApiFaultError, Fault
from imagebatch.model_apis.credentials import not_trusted
from imagebatch.model_apis.oip.client import OpenInference
from imagebatch.model_apis.oip.protocol import open_inference_pb2 as messages
from imagebatch.model_apis.oip.tensors import Given, Inference, Tensor, read_tensor
from imagebatch.settings import ApiSettings

# Before grpc is loaded: its own lines on standard error tell nothing that a fault does not, and the processes
# that make pixels are started by exec, which needs nothing of it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from google.protobuf.message import DecodeError, Message

M = TypeVar("M", bound=Message)

_SERVICE = "/inference.GRPCInferenceService/"
# A reply has a number per class and image; more than this is none.
_LARGEST_REPLY = 64 * 2**20
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", _LARGEST_REPLY),
    ("grpc.enable_retries", 0),  # the scorer's own policy, with its budget
    ("grpc.enable_http_proxy", 0),  # nothing is taken out of this user's environment
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # else a server that is back is not tried for two minutes
]
_FAULTS = {
    grpc.StatusCode.UNAVAILABLE: Fault.UNREACHABLE,
    grpc.StatusCode.CANCELLED: Fault.UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Fault.OVERLOADED,
    grpc.StatusCode.ABORTED: Fault.OVERLOADED,
    grpc.StatusCode.NOT_FOUND: Fault.OVERLOADED,  # it did serve the model: the server loads it again
    grpc.StatusCode.DEADLINE_EXCEEDED: Fault.TIMED_OUT,
    grpc.StatusCode.INVALID_ARGUMENT: Fault.BAD_REPLY,
    grpc.StatusCode.FAILED_PRECONDITION: Fault.BAD_REPLY,
    grpc.StatusCode.OUT_OF_RANGE: Fault.BAD_REPLY,
    grpc.StatusCode.UNIMPLEMENTED: Fault.BAD_REPLY,
}
_REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_TOO_LARGE = ("larger than max", "batch-size must be")  # gRPC's own words, and Triton's
_NOT_READY = ("not ready", "unknown model", "no available versions")
_SEVEN_BITS, _MORE = 0x7F, 0x80
_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}


class GrpcInference(OpenInference):
    """A client for one model of one server that speaks the Open Inference Protocol over gRPC."""

    forms: ClassVar[tuple[str, ...]] = ("raw",)  # there is no other that is not slower

    def __init__(self, settings: ApiSettings, model: str, version: str) -> None:
        super().__init__(settings, model, version)
        self._address = _address(settings.api_url)
        self._secure = settings.api_url.startswith("grpcs://")
        self._opening = threading.Lock()
        self._channel: grpc.Channel | None = None

    @override
    def close(self) -> None:
        super().close()
        with self._opening:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    @override
    def metadata(self) -> Mapping[str, Any]:
        asked = messages.ModelMetadataRequest(name=self._model, version=self._version)
        found = self._call("ModelMetadata", asked.SerializeToString(), messages.ModelMetadataResponse)
        tensors = {"inputs": found.inputs, "outputs": found.outputs}
        said = {side: [_tensor(each) for each in several] for side, several in tensors.items()}
        return {"name": found.name, "versions": list(found.versions), **said}

    @override
    def configured(self) -> tuple[dict[str, Any], int]:
        asked = messages.ModelConfigRequest(name=self._model, version=self._version)
        try:
            found = self._call("ModelConfig", asked.SerializeToString(), messages.ModelConfigResponse).config
        except (ApiFaultError, ConfigurationError):  # of another server than Triton
            return {}, 0
        texts = {name: each.string_value for name, each in found.parameters.items()}
        return texts, max(0, found.max_batch_size)

    @override
    def require_route_ready(self) -> None:
        asked = messages.ModelReadyRequest(name=self._model, version=self._version)
        found = self._call("ModelReady", asked.SerializeToString(), messages.ModelReadyResponse)
        if not found.ready:
            raise ApiFaultError(Fault.OVERLOADED, "not ready, the server says")

    @override
    def inference(self, identity: str, given: Given) -> Inference:
        said = {name: messages.InferParameter(string_param=text) for name, text in given.parameters.items()}
        tensor = messages.ModelInferRequest.InferInputTensor(
            name=given.name, datatype=given.datatype, shape=given.shape, parameters=said
        )
        if not given.raw:
            tensor.contents.bytes_contents.extend(given.elements)
        request = messages.ModelInferRequest(
            model_name=self._model,
            model_version=self._version,
            id=identity,
            inputs=[tensor],
        )
        body = _with_raw(request, given.binary) if given.raw else request.SerializeToString()
        return _inference(self._call("ModelInfer", body, messages.ModelInferResponse))

    def _call(self, method: str, request: bytes, kind: type[M]) -> M:
        """Call the server.

        Raises:
            ApiFaultError: There was no answer that can be used.
            ConfigurationError: This client is refused, or the model is not known.
        """
        token = self.token
        sent = token.header if token else {}
        try:
            try:
                body = self._called(method, request, sent)
            except grpc.RpcError as error:
                if not (token and error.code() in _REFUSED and token.replaced(sent)):
                    raise
                body = self._called(method, request, token.header)
        except grpc.RpcError as error:
            raise self._refused(error.code(), str(error.details())) from error
        except ValueError as error:  # the channel was closed meanwhile
            raise ApiFaultError(Fault.UNREACHABLE, one_line(error, 160)) from error
        try:
            return kind.FromString(body)
        except DecodeError as error:
            raise ApiFaultError(Fault.BAD_REPLY, f"not the expected message: {body[:40]!r}") from error

    def _called(self, method: str, request: bytes, header: Mapping[str, str]) -> bytes:
        call: Callable[..., bytes] = self._open().unary_unary(
            _SERVICE + method,
            request_serializer=None,  # bytes are sent and received as they are
            response_deserializer=None,
        )
        told = tuple((name.lower(), value) for name, value in header.items())
        return call(request, timeout=self._timeout, metadata=told)

    def _open(self) -> grpc.Channel:
        with self._opening:
            if self._channel is None:
                trusted = Path(self.trusted).read_bytes() if self.trusted else None
                self._channel = (
                    grpc.secure_channel(self._address, grpc.ssl_channel_credentials(trusted), _OPTIONS)
                    if self._secure
                    else grpc.insecure_channel(self._address, _OPTIONS)
                )
            return self._channel

    def _refused(self, code: grpc.StatusCode, details: str) -> Exception:
        """Return what a status other than OK means."""
        details = self.token.hidden(details) if self.token else details
        detail = f"gRPC {code.name} {one_line(details, 160)}".strip()
        if code in _REFUSED:
            return ConfigurationError(f"the model server refuses this client: {detail}")
        return not_trusted(details) or self._unserved(code, detail) or _fault(code, details, detail)

    def _unserved(self, code: grpc.StatusCode, detail: str) -> ConfigurationError | None:
        """Tell a model that never was there from one that is gone for a while."""
        asked = f"{self._model} {self._version}".strip()
        if code is grpc.StatusCode.NOT_FOUND and not self.pinned:
            return UnknownModelError(f"the model API does not serve {asked}: {detail}")
        if code is grpc.StatusCode.UNIMPLEMENTED and not self.pinned:
            return ConfigurationError(f"the server does not speak this protocol, or no versions: {detail}")
        return None


def _fault(code: grpc.StatusCode, details: str, detail: str) -> ApiFaultError:
    words = details.lower()
    if any(text in words for text in _TOO_LARGE):
        return ApiFaultError(Fault.TOO_LARGE, detail)
    if any(text in words for text in _NOT_READY):
        return ApiFaultError(Fault.OVERLOADED, detail)
    # To an image that their model cannot read, servers answer INTERNAL or UNKNOWN.
    return ApiFaultError(_FAULTS.get(code, Fault.WORKER_DIED), detail)


def _address(url: str) -> str:
    """Return host and port.

    Raises:
        ConfigurationError: There is more or less in the URL.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None or parts.path.strip("/") or parts.username:
        raise ConfigurationError(f"--api-url is no address: {parts.scheme}://host:port is meant")
    return f"[{parts.hostname}]:{port}" if ":" in parts.hostname else f"{parts.hostname}:{port}"


def _tensor(said: Any) -> dict[str, Any]:
    parameters = _values(said.parameters)
    return {
        "name": said.name,
        "datatype": said.datatype,
        "shape": list(said.shape),
        "parameters": parameters,
    }


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: each.WhichOneof("parameter_choice") for name, each in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice}


def _with_raw(request: messages.ModelInferRequest, content: bytes) -> bytes:
    """Write a request without raw contents, and then these: megabytes are copied once and not three times.

    A message that is written in two pieces is the same message.
    """
    number, bytes_of = messages.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER, 2
    return b"".join(
        (request.SerializeToString(), _varint(number << 3 | bytes_of), _varint(len(content)), content)
    )


def _varint(number: int) -> bytes:
    """Write a whole number as Protocol Buffers do: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > _SEVEN_BITS:
        found.append(number & _SEVEN_BITS | _MORE)
        number >>= 7
    return bytes((*found, number))


def _inference(found: messages.ModelInferResponse) -> Inference:
    """Read a reply.

    Raises:
        ApiFaultError: It is none.
    """
    raw = list(found.raw_output_contents)
    if raw and len(raw) != len(found.outputs):
        raise ApiFaultError(Fault.BAD_REPLY, f"{len(raw)} contents of {len(found.outputs)} outputs")
    try:
        outputs = {
            output.name: _output(output, raw[number] if raw else None)
            for number, output in enumerate(found.outputs)
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise ApiFaultError(Fault.BAD_REPLY, f"outputs that are none: {one_line(error, 80)}") from error
    told: dict[str, Any] = {}
    holders: Iterable[Any] = (*found.outputs, found)
    for holder in holders:
        told |= _values(holder.parameters)
    return Inference(found.model_name, found.model_version, found.id, told, outputs)


def _output(output: Any, raw: bytes | None) -> Tensor:
    data: list[Any] = list(getattr(output.contents, _CONTENTS.get(output.datatype, "bool_contents")))
    if output.datatype == "BYTES":
        data = [text.decode("utf-8", "replace") for text in data]
    return read_tensor({"datatype": output.datatype, "shape": list(output.shape), "data": data}, raw)
