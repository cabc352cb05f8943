"""The `.mar` itself: the files that it holds, packed so that the same files give the same bytes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from imagebatch_archive import (  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
    MODULES,
    module_path,
)

from imagebatch_training.errors import ConfigurationError, TrainingError
from imagebatch_training.export.graphs import export_model, export_onnx, load_served_model
from imagebatch_training.files import write_json, write_text
from imagebatch_training.settings import FIRST_VERSION, Model, Settings, model_path

DEFAULT = "openvino"
"""The engine of the archive that carries the model's own name."""
_TIME = (1980, 1, 1, 0, 0, 0)
_CREATED = "01/01/1980 00:00:00"


def archive_name(model: Model) -> str:
    """Return the name of an archive: the model's, and where it is not the default one its engine's."""
    short = model.engine.removeprefix("openvino-")
    return model.name if model.engine == DEFAULT else f"{model.name}-{short}"


def file_stem(model: Model) -> str:
    """Return the name of an archive's files: that of a version but the first has it, `solar-cells-1.1`."""
    name = archive_name(model)
    return name if model.version == FIRST_VERSION else f"{name}-{model.version}"


def render_model_config(handlers: Path, model: Model, more: Mapping[str, Any] | None = None) -> str:
    """Return the text of `model-config.yaml`, with this model's engine, input size, pixels and head in it.

    Args:
        handlers: Folder with the `model-config.yaml` that is the template.
        model: `engine`, `resize` and `crop`.
        more: Further keys of the section `imagebatch`, with their values: how a picture becomes a square,
            what the model's numbers mean (docs/reference/heads.md).

    Raises:
        ConfigurationError: The template is missing.
    """
    path = handlers / "model-config.yaml"
    if not path.is_file():
        raise ConfigurationError(f"no {path}: correct paths.handlers")
    text = path.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    own = {"engine": model.engine, "resize": model.resize, "crop": model.crop, "pixels": model.pixels}
    own |= {
        name: getattr(model, name) for name in ("value_range", "background", "page", "end_marker", "contrast")
    }
    wanted = config["imagebatch"] | own | dict(more or {})
    if wanted == config["imagebatch"]:
        return text  # with its comments
    return yaml.safe_dump(config | {"imagebatch": wanted}, sort_keys=False)


def collect_files(settings: Settings, labels: list[str], config: str, folder: Path) -> None:
    """Put everything that the archive shall hold into a folder.

    Args:
        settings: Paths and input size.
        labels: Class names in order.
        config: Text of `model-config.yaml`.
        folder: Empty.

    Raises:
        ConfigurationError: A file of the handler is missing.
    """
    copy_modules(Path(settings.paths.handlers), folder)
    write_text(folder / "model-config.yaml", config)
    write_json(folder / "index_to_name.json", {str(index): name for index, name in enumerate(labels)})
    served, crop = load_served_model(model_path(settings)), settings.model.crop
    export_model(served, crop, folder)
    if settings.model.engine == "onnxruntime":
        export_onnx(served, crop, folder / "model.onnx")


def copy_modules(handlers: Path, folder: Path) -> None:
    """Copy the handler's modules into a folder.

    Raises:
        ConfigurationError: One is missing.
    """
    for name in MODULES:
        try:
            source = module_path(name, handlers)
        except FileNotFoundError as error:
            raise ConfigurationError(f"{error}: correct paths.handlers") from error
        shutil.copyfile(source, folder / name)


def pack(folder: Path, model: Model, target: Path) -> None:
    """Make a `.mar` with torch-model-archiver and rewrite it so that the same files give the same bytes.

    Args:
        folder: From `collect_files`, or with a graph for OpenVINO alone.
        model: Name and version.
        target: Path of the archive.

    Raises:
        TrainingError: torch-model-archiver failed.
    """
    graph = next(file for file in ("model.pt2", "model.xml") if (folder / file).is_file())
    special = {MODULES[0], graph, "model-config.yaml"}
    extra = sorted(str(file) for file in folder.iterdir() if file.name not in special)
    with tempfile.TemporaryDirectory() as temporary:
        arguments = {
            "--model-name": archive_name(model),
            "--version": model.version,
            "--serialized-file": str(folder / graph),
            "--handler": str(folder / MODULES[0]),
            "--config-file": str(folder / "model-config.yaml"),
            "--extra-files": ",".join(extra),
            "--export-path": temporary,
        }
        command = [str(Path(sys.executable).parent / "torch-model-archiver")]
        command += [part for pair in arguments.items() for part in pair]
        # It works in a folder of the model's name in TMPDIR, where another's of the same name may be at work.
        environment = os.environ | {"TMPDIR": temporary}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, our own arguments
        made = Path(temporary) / f"{archive_name(model)}.mar"
        if done.returncode != 0 or not made.is_file():
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
            raise TrainingError(f"torch-model-archiver failed: {reason}")
        rewrite_reproducibly(made, target)


def rewrite_reproducibly(source: Path, target: Path) -> None:
    """Copy a `.mar` with sorted members, fixed times and modes, and a fixed `createdOn` in its manifest."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(name for name in old.namelist() if not name.endswith("/")):
            data = old.read(name)
            if name == "MAR-INF/MANIFEST.json":
                data = json.dumps(
                    json.loads(data) | {"createdOn": _CREATED}, indent=2, sort_keys=True
                ).encode()
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, whatever this machine is
            new.writestr(entry, data, zipfile.ZIP_DEFLATED, 6)
