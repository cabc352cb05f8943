"""Manifests as `kubectl kustomize` builds them."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
KSERVE = ROOT / "deploy" / "kserve"
KUBECTL = Path(sys.executable).with_name("kubectl")

Manifest = dict[str, Any]
Build = Callable[..., list[Manifest]]


@cache
def built(folder: Path) -> str:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build an overlay, with components on top where they are named."""

    def make(overlay: str, *components: str) -> list[Manifest]:
        folder = KSERVE / "overlays" / overlay
        if components:
            made = tmp_path / f"{overlay}-{'-'.join(components)}"
            made.mkdir()
            up = "/".join([".."] * len(made.parts[1:]))
            parts = [f"{up}{KSERVE}/components/{name}" for name in components]
            whole = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "imagebatch",
                "resources": [f"{up}{folder}"],
                "components": parts,
            }
            (made / "kustomization.yaml").write_text(json.dumps(whole))
            folder = made
        return [found for found in yaml.safe_load_all(built(folder)) if found]

    return make
