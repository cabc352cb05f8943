"""The kinds of model APIs: those of imagebatch, and those that other packages add by an entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

# Packages that speak another server's protocol name a `connect` in this group.
GROUP = "imagebatch.model_apis"

BUILT_IN = {
    "torchserve": "imagebatch.model_apis.torchserve.client",
    "local": "imagebatch.model_apis.local.pool",
    "oip": "imagebatch.model_apis.oip.client",
    "kserve_v1": "imagebatch.model_apis.kserve_v1",
    "mlflow": "imagebatch.model_apis.mlflow",
    "http": "imagebatch.model_apis.template",
    "transform": "imagebatch.model_apis.transform",
}


def added() -> dict[str, EntryPoint]:
    """Return what installed packages add, by name; a name of imagebatch's own stays its own."""
    return {found.name: found for found in entry_points(group=GROUP) if found.name not in BUILT_IN}


def require_backend(name: str) -> str:
    """Return the name if it is one of a model API.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in BUILT_IN and name not in (others := added()):
        msg = f"there is no model API {name!r}; there are {', '.join([*BUILT_IN, *others])}"
        raise ValueError(msg)
    return name
