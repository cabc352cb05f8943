"""The predictor: KServe's `Model` with an archive behind it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from kserve import InferRequest, InferResponse
from kserve import Model as KServeModel
from kserve.errors import InvalidInput

from imagebatch_kserve.archive import Model, Served
from imagebatch_kserve.protocol import (
    ERROR,
    INPUT,
    OUTPUT,
    SCORE,
    Answer,
    Content,
    Unreadable,
    images_of,
    reply_v1,
    reply_v2,
)


class Predictor(KServeModel):  # type: ignore[misc]  # kserve has no type marker
    """A model that takes image files and answers a probability per class, or a score, or an error per image.

    Requests are scored in threads, one image at a time on each, so that probes are answered meanwhile.

    Args:
        name: Of the model in paths.
        served: The loaded archive.
        copies: Threads, as many as the archive was loaded.
    """

    def __init__(self, name: str, served: Served, copies: int) -> None:
        super().__init__(name)
        self.served = served
        self.told = {"digest": served.digest, "version": served.version}
        self._threads = ThreadPoolExecutor(copies, "scoring")
        self.ready = True

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: Any = None
    ) -> dict[str, Any] | InferResponse:
        """Score the images of a request.

        Args:
            payload: A V1 body, or a V2 request.
            headers: Not used.
            response_headers: Not used.

        Returns:
            The reply in the same version.

        Raises:
            InvalidInput: The request is malformed or holds too many images.
        """
        del headers, response_headers
        images = images_of(payload)
        if len(images) > self.served.most:
            raise InvalidInput(
                f"{len(images)} images in one request, at most {self.served.most} are accepted"
            )
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._threads, self._score, images)
        if isinstance(payload, InferRequest):
            return reply_v2(payload, answers, self._output, self.told)
        return reply_v1(answers, self.served.labels, self.served.head, self.told)

    def get_input_types(self) -> list[dict[str, Any]]:
        """Describe the tensor that takes the images."""
        return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Describe what is answered."""
        name, numbers = self._output
        scores = {"name": name, "datatype": "FP32", "shape": [-1, numbers]}
        return [scores, {"name": ERROR, "datatype": "BYTES", "shape": [-1]}]

    @property
    def _output(self) -> tuple[str, int]:
        """Name of the tensor with the numbers, and how many an image has."""
        return (SCORE, 1) if self.served.head == "regression" else (OUTPUT, len(self.served.labels))

    def metadata(self) -> dict[str, Any]:
        """Make the model's V2 metadata, with labels and digest as parameters, where clients look for them."""
        scores, errors = self.get_output_types()
        scores["parameters"] = {"labels": self.served.labels}
        return {
            "name": self.name,
            "versions": [self.served.version],
            "platform": "imagebatch",
            "inputs": self.get_input_types(),
            "outputs": [scores, errors],
            "parameters": {"digest": self.served.digest},
        }

    def _score(self, images: list[Content]) -> list[Answer]:
        with self.served.copy() as model:
            return [self._answer(model, content) for content in images]

    def _answer(self, model: Model, content: Content) -> Answer:
        if isinstance(content, Unreadable):
            return content
        try:
            classes = len(self.served.labels)
            found = model.predict(model.infer(model.decode(content)), classes)
        except self.served.refusals as error:
            return Unreadable(str(vars(error)["reason"]), str(vars(error)["detail"]))
        if self.served.head == "regression":
            return np.array([found.score], np.float32)
        if self.served.head == "multilabel":  # by class already
            return np.array(found.probabilities, np.float32)
        values = np.empty(classes, np.float32)
        values[found.classes] = found.probabilities
        return values
