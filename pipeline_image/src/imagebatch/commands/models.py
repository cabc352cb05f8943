"""`imagebatch models`: the model server's management API as a command."""

from __future__ import annotations

from typing import Any

from imagebatch.model_apis.torchserve.management import Management
from imagebatch.settings import ModelsSettings


def models(settings: ModelsSettings) -> Any:
    """Do one action and return the server's answer, as JSON types."""
    management = Management(settings)
    name, version = settings.model, settings.model_version
    match settings.action:
        case "list":
            return management.list()
        case "describe":
            return management.describe(name, version)
        case "register":
            return management.register(settings.archive, settings.workers)
        case "default":
            return management.make_default(name, version)
        case "unregister":
            return management.unregister(name, version)
        case "scale":
            return management.scale(name, version, settings.workers)
