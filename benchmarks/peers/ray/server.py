"""Ray Serve, two replicas: an image per request, or 32 images in one body."""

from __future__ import annotations

import os
import threading
from typing import Any

import cluster
from models import open_model, unpack
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=8)
class Images:
    """The deployment of Ray Serve's documentation."""

    def __init__(self) -> None:
        self.model = open_model()

    async def __call__(self, request: Request) -> Any:
        """Score the body: one image, or many where the path says so."""
        body = await request.body()
        return self.model.predict(unpack(body) if request.url.path.endswith("/pack") else [body])


if __name__ == "__main__":
    cluster.start()
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Images.bind())
    threading.Event().wait()
