"""Model APIs: one module each. A further one is a module here and a line in `_MODULES`."""

from __future__ import annotations

import importlib

from imagebatch.model_apis.base import ModelApi
from imagebatch.settings import ApiSettings

_MODULES = {
    "torchserve": "imagebatch.model_apis.torchserve.client",
    "local": "imagebatch.model_apis.local.pool",
}


def open_backend(kind: str, settings: ApiSettings, model: str, version: str) -> ModelApi:
    """Open the model API of a kind.

    Args:
        kind: A name out of `settings.InputSettings.backend`.
        settings: Where the server is and how to be let in.
        model: Name of the model.
        version: Its version; empty for the server's default.
    """
    module = importlib.import_module(_MODULES[kind])
    api: ModelApi = module.connect(settings, model, version)
    return api
