"""Strict schemas, by kubernetes-validate and by KServe's CRDs: unknown fields are refused."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.kserve.manifests.conftest import ROOT, Manifest

CRDS = ROOT.parent / "shared" / "data" / "kserve-crds"
GROUP = "serving.kserve.io"
KUBERNETES = "1.32"
"""The oldest that KServe 0.20 runs on."""


def validate(manifest: Manifest) -> None:
    """Raise where a manifest is not what its kind's schema says.

    KServe's kinds are skipped where their CRDs are not beside the checkout: they are KServe's to give out.
    """
    if manifest["apiVersion"].startswith(f"{GROUP}/"):
        schema = crd_schema(manifest["kind"], manifest["apiVersion"].partition("/")[2])
        jsonschema.Draft202012Validator(schema).validate(
            manifest
        )  # without a look at two megabytes of schema
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@cache
def crd_schema(kind: str, version: str) -> dict[str, Any]:
    """The strict schema of one of KServe's kinds."""
    path = CRDS / f"{GROUP}_{kind.lower()}s.yaml"
    if not path.is_file():
        pytest.skip(f"KServe's CRDs are not in {CRDS}")
    (schema,) = (
        found["schema"]["openAPIV3Schema"]
        for found in read(path)["spec"]["versions"]
        if found["name"] == version
    )
    strict: dict[str, Any] = _strict(schema, top=True)
    return strict


def read(path: Path) -> Any:
    """A file of one YAML document."""
    quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return next(found for found in yaml.load_all(path.read_text("utf-8"), quick) if found)


def _strict(schema: Any, *, top: bool = False) -> Any:
    """Refuse fields that a schema does not name; `metadata` is Kubernetes' to check."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {
        name: {key: _strict(value) for key, value in part.items()} if name == "properties" else _strict(part)
        for name, part in schema.items()
        if name not in {"description", "default", "format"} or isinstance(part, dict)
    }
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and "properties" in schema and not open_ended:
        found["additionalProperties"] = False
    if top:
        found["properties"]["metadata"] = {"type": "object"}
    return found
