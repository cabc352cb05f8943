"""MLflow's model from code: base64 in, a list of numbers out; run by `mlflow models serve`."""

from __future__ import annotations

import base64
from typing import Any

import mlflow


class Images(mlflow.pyfunc.PythonModel):
    """The model as MLflow's documentation shows it."""

    def load_context(self, context: Any) -> None:
        """Load the model."""
        del context
        from answering import Answering  # noqa: PLC0415 (where it is served, and not where it is saved)

        self.answering = Answering()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Score images; one that cannot be read fails the request."""
        del context, params
        files = [base64.b64decode(text, validate=True) for text in model_input]
        return [self.answering.probabilities(file).tolist() for file in files]


mlflow.models.set_model(Images())
