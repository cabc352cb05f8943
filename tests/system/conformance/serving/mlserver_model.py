"""MLServer's custom runtime: V2 with base64 or pixels; its metadata carries labels with the output."""

from __future__ import annotations

import numpy as np
from answering import Answering
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Images(MLModel):  # type: ignore[misc]  # mlserver is not installed where this is linted
    """The model as MLServer's documentation shows it."""

    async def load(self) -> bool:
        """Load the model."""
        self.answering = Answering()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score the images of a tensor; one that cannot be read fails the request."""
        (images,) = payload.inputs
        if images.datatype == "UINT8":
            rows = self.answering.of_pixels(NumpyCodec.decode_input(images))
        else:
            files = Base64Codec.decode_input(images)
            rows = np.stack([self.answering.probabilities(file) for file in files])
        output = NumpyCodec.encode_output("probabilities", rows)
        return InferenceResponse(
            id=payload.id, model_name=self.name, model_version=self.version, outputs=[output]
        )
