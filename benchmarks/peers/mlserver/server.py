"""MLServer, two parallel workers: V2 with base64, one image or many; its REST API takes no binary tensors."""

from __future__ import annotations

import json

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from models import open_model


class Images(MLModel):  # type: ignore[misc]  # untyped where this is linted
    """The custom runtime of MLServer's documentation."""

    async def load(self) -> bool:
        """Load the model, once per worker."""
        self.answering = open_model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score the images of a tensor."""
        answers = self.answering.predict(Base64Codec.decode_input(payload.inputs[0]))
        output = StringCodec.encode_output("answers", [json.dumps(answer) for answer in answers])
        return InferenceResponse(model_name=self.name, outputs=[output])
