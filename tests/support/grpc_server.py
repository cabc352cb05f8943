"""A gRPC server on loopback for the Open Inference Protocol, with the answers of `protocol_server`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from imagebatch.model_apis.oip.protocol import open_inference_pb2 as messages

from tests.support.model_server import Wrong
from tests.support.protocol_server import LENGTH, MODEL, Habits, ProtocolServer

Status = grpc.StatusCode
CODES = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    413: Status.RESOURCE_EXHAUSTED,
    422: Status.FAILED_PRECONDITION,
    429: Status.RESOURCE_EXHAUSTED,
    500: Status.INTERNAL,
    501: Status.UNIMPLEMENTED,
    502: Status.UNKNOWN,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}


class GrpcServer:
    """Serves until closed.

    Attributes:
        known: What answers: its habits, faults and counts are those of this server, too.
        token: Without it nobody is let in; empty: everybody is.
    """

    def __init__(self, habits: Habits, *, secured: grpc.ServerCredentials | None = None) -> None:
        self.known = ProtocolServer(habits)
        self.token = ""
        methods: dict[str, Callable[[bytes, grpc.ServicerContext], Any]] = {
            "ModelReady": self._ready,
            "ModelMetadata": self._metadata,
            "ModelInfer": self._infer,
        }
        if habits.raw:
            methods["ModelConfig"] = self._config
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._let_in(method), response_serializer=lambda reply: reply
            )
            for name, method in methods.items()
        }
        self._server = grpc.server(ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)]
        )
        at = "127.0.0.1:0"
        port = self._server.add_secure_port(at, secured) if secured else self._server.add_insecure_port(at)
        self.url = f"grpc{'s' * bool(secured)}://127.0.0.1:{port}"
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self.known.__exit__()

    def _let_in(self, method: Callable[[bytes, grpc.ServicerContext], Any]) -> Any:
        def called(body: bytes, context: grpc.ServicerContext) -> bytes:
            told = dict(context.invocation_metadata())
            if self.token and told.get("authorization") != f"Bearer {self.token}":
                context.abort(Status.UNAUTHENTICATED, "no, or another token")
            reply: bytes = method(body, context).SerializeToString()
            return reply

        return called

    def _ready(self, body: bytes, context: grpc.ServicerContext) -> Any:
        _known(messages.ModelReadyRequest.FromString(body).name, context)
        return messages.ModelReadyResponse(ready=self.known.ready)

    def _metadata(self, body: bytes, context: grpc.ServicerContext) -> Any:
        _known(messages.ModelMetadataRequest.FromString(body).name, context)
        found = _answered(self.known.told(f"/v2/models/{MODEL}"), context)
        sides = {
            side: [
                messages.ModelMetadataResponse.TensorMetadata(
                    name=each["name"],
                    datatype=each["datatype"],
                    shape=each["shape"],
                    parameters={
                        name: messages.InferParameter(string_param=_text(value))
                        for name, value in each.get("parameters", {}).items()
                    },
                )
                for each in found[side]
            ]
            for side in ("inputs", "outputs")
        }
        return messages.ModelMetadataResponse(name=MODEL, versions=found["versions"] or [], **sides)

    def _config(self, body: bytes, context: grpc.ServicerContext) -> Any:
        _known(messages.ModelConfigRequest.FromString(body).name, context)
        found = _answered(self.known.told(f"/v2/models/{MODEL}/config"), context)
        kind = messages.ModelConfigResponse
        parameters = {
            name: kind.ModelParameter(string_value=value["string_value"])
            for name, value in found["parameters"].items()
        }
        config = kind.ModelConfig(max_batch_size=found["max_batch_size"], parameters=parameters)
        return kind(config=config)

    def _infer(self, body: bytes, context: grpc.ServicerContext) -> Any:
        asked = messages.ModelInferRequest.FromString(body)
        _known(asked.model_name, context)
        (given,) = asked.inputs
        tensor: dict[str, Any] = {
            "name": given.name,
            "datatype": given.datatype,
            "shape": list(given.shape),
        }
        raw = b"".join(asked.raw_input_contents)
        if not raw:
            tensor["data"] = [text.decode() for text in given.contents.bytes_contents]
        head = json.dumps({"id": asked.id, "inputs": [tensor]}).encode()
        headers = {LENGTH: str(len(head))} if raw else {}
        answer = self.known.inferred(f"/v2/models/{MODEL}/infer", headers, head + raw)
        time.sleep(answer.pause)
        return _inferred(_answered(answer, context), answer)


def _known(name: str, context: grpc.ServicerContext) -> None:
    if name != MODEL:
        context.abort(Status.NOT_FOUND, f"Request for unknown model: '{name}' is not found")


def _answered(answer: Wrong, context: grpc.ServicerContext) -> Any:
    """Returns the JSON of an answer, or ends the call with the status that stands for its own."""
    if answer.status != 200:
        context.abort(CODES[answer.status], answer.body.decode())
    length = answer.headers.get(LENGTH)
    return json.loads(answer.body[: int(length)] if length else answer.body)


def _inferred(reply: dict[str, Any], answer: Wrong) -> Any:
    raw = answer.body[int(answer.headers[LENGTH]) :] if LENGTH in answer.headers else b""
    kind = messages.ModelInferResponse
    outputs, contents = [], []
    for each in reply["outputs"]:
        output = kind.InferOutputTensor(name=each["name"], datatype=each["datatype"], shape=each["shape"])
        texts = [text.encode() for text in each.get("data", [])] if each["datatype"] == "BYTES" else []
        if raw:  # then all are
            told = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
            contents.append(told if texts else raw)
        elif texts:
            output.contents.bytes_contents.extend(texts)
        else:
            output.contents.fp32_contents.extend(each["data"])
        outputs.append(output)
    parameters = {
        name: messages.InferParameter(string_param=value)
        for name, value in reply.get("parameters", {}).items()
    }
    return kind(
        model_name=MODEL,
        model_version=reply["model_version"],
        id=reply["id"],
        outputs=outputs,
        raw_output_contents=contents,
        parameters=parameters,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
