"""KServe's Python server, two workers: V1 with base64 as documented, one image or 32.

Its V2 binary tensors (0.21) refuse bytes that are not UTF-8 text.
"""

from __future__ import annotations

import base64
import functools
import os
import socket
from typing import Any

from kserve import Model, ModelServer
from kserve.protocol.rest.multiprocess.server import RESTServerProcess
from models import open_model

# The server offers no way to choose its address, and would listen on every interface.
_bind = socket.socket.bind
socket.socket.bind = lambda self, address: _bind(self, _local(address))  # type: ignore[method-assign]  # the one way to loopback

# It kills workers that do not answer within five seconds, which on a busy machine their imports alone take.
RESTServerProcess.is_alive.__defaults__ = (60.0,)


def _local(address: Any) -> Any:
    everywhere = isinstance(address, tuple) and address[0] in {"", "0.0.0.0"}  # noqa: S104 - compared with, never bound
    return ("127.0.0.1", *address[1:]) if everywhere else address


class Images(Model):  # type: ignore[misc]  # kserve is not installed where this is linted
    """The custom predictor of KServe's documentation."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True  # the model is loaded in each worker: it cannot be sent to another process

    @functools.cached_property
    def answering(self) -> Any:
        """The model."""
        return open_model()

    def predict(self, payload: Any, headers: dict[str, str] | None = None, **_: Any) -> Any:
        """Score V1 instances: one or many images."""
        del headers
        files = [base64.b64decode(instance["image"]["b64"]) for instance in payload["instances"]]
        return {"predictions": self.answering.predict(files)}


if __name__ == "__main__":
    port = int(os.environ["PEER_PORT"])
    ModelServer(http_port=port, workers=2, enable_grpc=False).start([Images("images")])
