"""Triton's Python backend: raw image files or pixels in, numbers per class and an error per image out."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as backend
from answering import Answering


class TritonPythonModel:
    """The model as Triton's documentation shows it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        del args
        self.answering = Answering()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score the images of each request; one that cannot be read is told by its text in `error`."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = backend.get_input_tensor_by_name(request, "image").as_numpy()
        if images.dtype == np.uint8:
            rows = self.answering.of_pixels(images)
            return backend.InferenceResponse([backend.Tensor("probabilities", rows)])
        files = images.ravel()
        rows = np.zeros((len(files), len(self.answering.labels)), np.float32)
        errors = np.full((len(files), 1), "", object)
        for number, file in enumerate(files):
            try:
                rows[number] = self.answering.probabilities(bytes(file))
            except Exception as error:  # noqa: BLE001 (the archive's modules raise their own kinds)
                errors[number, 0] = str(error)
        outputs = [backend.Tensor("probabilities", rows), backend.Tensor("error", errors)]
        return backend.InferenceResponse(outputs)
