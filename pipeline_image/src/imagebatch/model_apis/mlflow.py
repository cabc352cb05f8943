"""MLflow's scoring server (`mlflow models serve`): `/invocations` with base64, one model per server.

Source: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from imagebatch.model_apis.base import ImagePayload
from imagebatch.model_apis.json_reply import read_object
from imagebatch.model_apis.kserve_v1 import predictions
from imagebatch.model_apis.served import Rows, Said, ServedModel
from imagebatch.settings import ApiSettings


def connect(settings: ApiSettings, model: str, version: str) -> MLflow:
    """Return a client for the server's model, whatever it is named there."""
    return MLflow(settings, model, version)


class MLflow(ServedModel):
    """A client for one MLflow scoring server."""

    @override
    def said(self) -> Said:
        self.require_route_ready()
        return Said(version=self._version)

    @override
    def require_route_ready(self) -> None:
        self.ask("GET", "/ping")

    @override
    def rows(self, images: Sequence[ImagePayload]) -> Rows:
        texts = [base64.b64encode(image.data).decode() for image in images]
        asked: dict[str, Any] = {"inputs": texts}
        if column := self.card.input:
            asked = {"dataframe_split": {"columns": [column], "data": [[text] for text in texts]}}
        reply = read_object(self.ask("POST", "/invocations", json=asked).content)
        return Rows(predictions(reply, self.card.output), str(reply.get("digest") or ""))
