"""Manifests as `kubectl kustomize` builds them."""

import json
import shutil
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
    """Build an overlay, with components where they are named: in its own list, as the page says."""

    def make(overlay: str, *components: str) -> list[Manifest]:
        folder = KSERVE / "overlays" / overlay
        if components:
            deploy = tmp_path / "-".join((overlay, *components))
            whole = deploy / "kserve"
            for part in ("base", "components", "overlays"):
                shutil.copytree(KSERVE / part, whole / part, dirs_exist_ok=True)
            # The nightly batch is the one of clusters without KServe.
            shutil.copytree(KSERVE.parent / "kubernetes", deploy / "kubernetes", dirs_exist_ok=True)
            folder = whole / "overlays" / overlay
            page = folder / "kustomization.yaml"
            said = yaml.safe_load(page.read_text("utf-8"))
            said["components"] = [
                *said.get("components", []),
                *(f"../../components/{name}" for name in components),
            ]
            page.write_text(json.dumps(said), "utf-8")
        return [found for found in yaml.safe_load_all(built(folder)) if found]

    return make
