"""KServe's Python server, one process, as `imagebatch score` asks it: V1 and V2 files; pixels over gRPC."""

from __future__ import annotations

import base64
import functools
import os
from typing import Any

import grpc
import server
from kserve import InferOutput, InferResponse, Model, ModelServer
from models import Ours


class Images(Model):  # type: ignore[misc]  # kserve is not installed where this is linted
    """A predictor of files and of pixels."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True  # the model is loaded in each worker: it cannot be sent to another process

    @functools.cached_property
    def answering(self) -> Ours:
        """The model."""
        return Ours()

    def predict(self, payload: Any, headers: dict[str, str] | None = None, **_: Any) -> Any:
        """Score the images of a request of either version."""
        del headers
        if isinstance(payload, dict):
            files = [base64.b64decode(instance["image"]["b64"]) for instance in payload["instances"]]
            return {"predictions": self.answering.rows(files).tolist()}
        (images,) = payload.inputs
        if images.datatype == "UINT8":
            rows = self.answering.rows_of_pixels(images.as_numpy())
        else:
            files = [base64.b64decode(text, validate=True) for text in images.as_numpy().ravel()]
            rows = self.answering.rows(files)
        output = InferOutput("probabilities", list(rows.shape), "FP32", data=rows.ravel().tolist())
        return InferResponse(payload.id, self.name, [output])


assert server.Images is not Images  # noqa: S101 (it is imported for what it changes: REST stays on loopback)
_add_port = grpc.aio.Server.add_insecure_port
grpc.aio.Server.add_insecure_port = lambda self, address: _add_port(  # type: ignore[method-assign]  # the one way to loopback for gRPC
    self, address.replace("[::]", "127.0.0.1")
)

if __name__ == "__main__":
    rest, over_grpc = (int(os.environ[name]) for name in ("PEER_PORT", "PEER_GRPC_PORT"))
    ModelServer(http_port=rest, grpc_port=over_grpc, workers=1).start([Images("solar-cells")])
