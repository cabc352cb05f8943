"""MLServer's custom runtime: V2 with base64; its metadata carries labels and digest with the output."""

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
        files = Base64Codec.decode_input(payload.inputs[0])
        rows = np.stack([self.answering.probabilities(file) for file in files])
        output = NumpyCodec.encode_output("probabilities", rows)
        return InferenceResponse(
            id=payload.id, model_name=self.name, model_version=self.version, outputs=[output]
        )
