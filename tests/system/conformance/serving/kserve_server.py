"""KServe's own Python server with a model that takes pixels, over REST and gRPC."""

from __future__ import annotations

import os
import socket
from typing import Any

import grpc
from answering import Answering
from kserve import InferOutput, InferResponse, Model, ModelServer

# The server offers no way to choose its address, and would listen on every interface.
_bind = socket.socket.bind
socket.socket.bind = lambda self, address: _bind(self, _local(address))  # type: ignore[method-assign]  # the one way to loopback
_add_port = grpc.aio.Server.add_insecure_port
grpc.aio.Server.add_insecure_port = lambda self, address: _add_port(  # type: ignore[method-assign]  # the one way to loopback for gRPC
    self, address.replace("[::]", "127.0.0.1")
)


def _local(address: Any) -> Any:
    everywhere = isinstance(address, tuple) and address[0] in {"", "0.0.0.0"}  # noqa: S104 - compared with, never bound
    return ("127.0.0.1", *address[1:]) if everywhere else address


class Images(Model):  # type: ignore[misc]  # kserve is not installed where this is linted
    """A custom predictor."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.answering = Answering()
        self.ready = True

    def predict(self, payload: Any, headers: dict[str, str] | None = None, **_: Any) -> Any:
        """Score the images of a request."""
        del headers
        (images,) = payload.inputs
        rows = self.answering.of_pixels(images.as_numpy())
        output = InferOutput("probabilities", list(rows.shape), "FP32", data=rows.ravel().tolist())
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    http, grpc_ = (int(os.environ[name]) for name in ("CONFORMANCE_PORT", "CONFORMANCE_GRPC_PORT"))
    ModelServer(http_port=http, grpc_port=grpc_, workers=1).start([Images("solar-cells")])
