"""MLServer as `imagebatch score` asks it: base64 or pixels in, numbers per class out."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from models import Ours


class Images(MLModel):  # type: ignore[misc]  # untyped where this is linted
    """A runtime of files and of pixels."""

    async def load(self) -> bool:
        """Load the model, once per worker."""
        self.answering = Ours()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score the images of a tensor."""
        (images,) = payload.inputs
        if images.datatype == "UINT8":
            rows = self.answering.rows_of_pixels(NumpyCodec.decode_input(images))
        else:
            rows = self.answering.rows(Base64Codec.decode_input(images))
        output = NumpyCodec.encode_output("probabilities", rows)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
