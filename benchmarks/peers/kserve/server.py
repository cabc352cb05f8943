"""KServe's Python server, two workers: V1 with base64 as documented, or V2 with binary images."""

from __future__ import annotations

import base64
import functools
import json
import os
import socket
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from models import Model as Answering
from models import open_model

# The server offers no way to choose its address, and would listen on every interface.
_bind = socket.socket.bind
socket.socket.bind = lambda self, address: _bind(self, _local(address))  # type: ignore[method-assign]  # as said


def _local(address: Any) -> Any:
    everywhere = isinstance(address, tuple) and address[0] in {"", "0.0.0.0"}  # noqa: S104 - to be replaced
    return ("127.0.0.1", *address[1:]) if everywhere else address


class Images(Model):  # type: ignore[misc]  # untyped where this is linted
    """The custom predictor of KServe's documentation."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True  # the model is loaded in each worker: it cannot be sent to another process

    @functools.cached_property
    def answering(self) -> Answering:
        """The model."""
        return open_model()

    def predict(self, payload: Any, headers: dict[str, str] | None = None, **_: Any) -> Any:
        """Score V1 instances or a V2 tensor of bytes."""
        del headers
        if not isinstance(payload, InferRequest):
            files = [base64.b64decode(instance["image"]["b64"]) for instance in payload["instances"]]
            return {"predictions": self.answering.predict(files)}
        answers = self.answering.predict(list(payload.inputs[0].as_numpy()))
        rows = [json.dumps(answer) for answer in answers]
        output = InferOutput("answers", [len(rows)], "BYTES", rows)
        return InferResponse(payload.id or "", self.name, [output])


if __name__ == "__main__":
    port = int(os.environ["PEER_PORT"])
    ModelServer(http_port=port, workers=2, enable_grpc=False).start([Images("images")])
