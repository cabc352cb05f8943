"""LitServe as its documentation shows it: base64 of several images in a request, numbers per class out."""

import base64
import os
from typing import Any

import litserve
from answering import Answering
from fastapi import Request


class Images(litserve.LitAPI):  # type: ignore[misc]  # litserve is not installed where this is linted
    """The model; one image that cannot be read fails its request."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device
        self.answering = Answering()

    def decode_request(self, request: Request) -> list[bytes]:
        """Take the files out of a request."""
        asked: Any = request  # parsed JSON, whatever the annotation, by which it is chosen how to parse
        return [base64.b64decode(text, validate=True) for text in asked["images"]]

    def predict(self, files: list[bytes]) -> list[list[float]]:
        """Score the images of a request."""
        return [self.answering.probabilities(file).tolist() for file in files]

    def encode_response(self, rows: list[list[float]]) -> dict[str, Any]:
        """Put them into a reply."""
        return {"results": [{"scores": row} for row in rows]}


if __name__ == "__main__":
    server = litserve.LitServer(Images(), accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["CONFORMANCE_PORT"]),
        num_api_servers=1,
        generate_client_file=False,
    )
