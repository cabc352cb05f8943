"""BentoML, two workers: an image per request, or 32 images in one body."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
from models import open_model, unpack


@bentoml.service(workers=2, traffic={"timeout": 120})
class Images:
    """The service of BentoML's documentation."""

    def __init__(self) -> None:
        self.model = open_model()

    @bentoml.api
    async def predict(self, file: Path) -> list[Any]:
        """Score one upload."""
        return self.model.predict([file.read_bytes()])  # noqa: ASYNC240 - a worker does one request at a time

    @bentoml.api
    async def pack(self, file: Path) -> list[Any]:
        """Score many images of one upload."""
        return self.model.predict(unpack(file.read_bytes()))  # noqa: ASYNC240 - a worker does one request at a time
