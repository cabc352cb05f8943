"""Model APIs: one module each, and those of other packages (docs/reference/model-apis.md)."""

from __future__ import annotations

import importlib
from typing import Any

from imagebatch.errors import ConfigurationError
from imagebatch.model_apis.base import ModelApi
from imagebatch.model_apis.several import SeveralEndpoints
from imagebatch.settings import ApiSettings
from imagebatch.settings.backends import BUILT_IN, GROUP, added
from imagebatch.settings.values import GRPC_SCHEMES

_SERVERLESS = {"local", "transform"}


def open_backend(kind: str, settings: ApiSettings, model: str, version: str) -> ModelApi:
    """Open the model API of a kind.

    Args:
        kind: A name out of `BUILT_IN`, or of an entry point of the group `imagebatch.model_apis`.
        settings: Where the server is, or several that serve the same model, and how to be let in.
        model: Name of the model.
        version: Its version; empty for the server's default.

    Raises:
        ConfigurationError: There is no such kind here, its package cannot be loaded, or it speaks no gRPC.
    """
    connect = importlib.import_module(BUILT_IN[kind]).connect if kind in BUILT_IN else _added(kind)
    urls = [settings.api_url] if kind in _SERVERLESS else settings.api_url.split(",")
    if kind in BUILT_IN.keys() - _SERVERLESS - {"oip"} and any(url.startswith(GRPC_SCHEMES) for url in urls):
        raise ConfigurationError(f"--backend {kind} speaks HTTP: --api-url grpc:// is for --backend oip")
    opened: dict[str, ModelApi] = {
        url: connect(settings.model_copy(update={"api_url": url}), model, version) for url in urls
    }
    return SeveralEndpoints(opened) if len(opened) > 1 else opened[urls[0]]


def _added(kind: str) -> Any:
    entry = added().get(kind)
    if entry is None:
        raise ConfigurationError(
            f"no model API {kind!r} is installed here: install the package that adds it by an entry point of"
            f" {GROUP}"
        )
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the model API {kind}, {entry.value}, cannot be loaded: {error}") from error
