"""LitServe, two workers: an upload per request, or 32 uploads in one form."""

import os
from typing import Any

import litserve
from fastapi import Request
from models import open_model, unpack


class Images(litserve.LitAPI):  # type: ignore[misc]  # litserve is not installed where this is linted
    """The API of LitServe's documentation."""

    def setup(self, device: str) -> None:
        """Load the model, once per worker."""
        del device
        self.model = open_model()

    def decode_request(self, request: Request) -> list[bytes]:
        """Read the files of a form: one image, or one part with many."""
        form: Any = request  # a parsed form, whatever the annotation, which chooses how it is parsed
        if "pack" in form:
            return unpack(form["pack"].file.read())
        return [form["file"].file.read()]

    def predict(self, x: list[bytes]) -> Any:
        """Score."""
        return self.model.predict(x)

    def encode_response(self, output: Any) -> Any:
        """Answer a list of labels and probabilities."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Images(), accelerator="cpu", workers_per_device=2, timeout=120)
    port = int(os.environ["PEER_PORT"])
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
