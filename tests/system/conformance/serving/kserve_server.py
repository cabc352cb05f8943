"""KServe's own Python server: V1 with base64 and V2 with base64 in BYTES, as its documentation shows."""

from __future__ import annotations

import base64
import os
import socket
from typing import Any

import numpy as np
from answering import Answering
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

# The server offers no way to choose its address, and would listen on every interface.
_bind = socket.socket.bind
socket.socket.bind = lambda self, address: _bind(self, _local(address))  # type: ignore[method-assign]  # the one way to loopback


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
        """Score the images of a request of either version; one that cannot be read fails all of it."""
        del headers
        if not isinstance(payload, InferRequest):
            files = [base64.b64decode(instance["image"]["b64"]) for instance in payload["instances"]]
            return {"predictions": [self.answering.probabilities(file).tolist() for file in files]}
        files = [base64.b64decode(text, validate=True) for text in payload.inputs[0].data]
        rows = np.stack([self.answering.probabilities(file) for file in files])
        output = InferOutput("probabilities", list(rows.shape), "FP32", data=rows.ravel().tolist())
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    port = int(os.environ["CONFORMANCE_PORT"])
    ModelServer(http_port=port, workers=1, enable_grpc=False).start([Images("solar-cells")])
