"""The verb `layout`: an archive as KServe's storage has it, for TorchServe and for OpenVINO Model Server.

<folder>/<model>/
torchserve/config/config.properties    and model-store/<model>.mar: also what our predictor reads
openvino/1/model.xml, model.bin        one graph with named tensors, an image a request
card.json                              what OpenVINO's server cannot tell: --model-card
"""

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
from imagebatch_archive import content_digest  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
from imagebatch_engines import Engine  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker

from imagebatch_training.archive.golden import require_golden
from imagebatch_training.archive.loaded import load_archive
from imagebatch_training.archive.openvino_model import write_model
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.export.graphs import EXACT
from imagebatch_training.files import publish, read_json, sha256_file

MOUNT = "/mnt/models"
"""Where KServe's storage initialiser puts a storage's files, in every pod."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # as TorchServe's allowed_urls, and a folder's
_CHANGED: Mapping[str, tuple[str, str]] = {
    "inference_address": (
        "http://0.0.0.0:8080",
        "A pod's address is not known before it runs. The other APIs stay on its loopback.",
    ),
    "model_store": (f"{MOUNT}/model-store", "Where KServe mounts this folder."),
    "enable_model_api": ("false", "A pod serves what its storage holds: another model is another revision."),
    "disable_token_authorization": (
        "true",
        "KServe's router knows no keys, and each replica has others: who may ask says a NetworkPolicy.",
    ),
}


def lay_out(mar: Path, folder: Path, handlers: Path) -> dict[str, Any]:
    """Check an archive and lay it out; what is there already and the same is left as it is.

    Args:
        mar: The archive; its record and golden images are looked for beside it.
        folder: Where to: `<folder>/<model>/`.
        handlers: Folder with the shipped `config.properties`.

    Returns:
        `name`, `version`, `digest`, `folder`, the files that were `written`, and what is `left_out`, and why.

    Raises:
        ConfigurationError: A file is missing, or the archive is none.
        DataError: The archive is not the one that its record describes, or does not answer as its golden
            images say; or the graph does not answer as the archive.
    """
    if not mar.is_file():
        raise ConfigurationError(f"no {mar}: run imagebatch-train archive")
    with tempfile.TemporaryDirectory() as temporary:
        unpacked, new = Path(temporary, "unpacked"), Path(temporary, "new")
        manifest = _unpack(mar, unpacked)
        name, version = str(manifest["modelName"]), str(manifest.get("modelVersion", ""))
        digest: str = content_digest(unpacked)
        _require_record(mar, digest)
        model = _load(unpacked)
        require_golden(mar.with_suffix(".golden.json"), model)
        _torchserve(mar, name, handlers, new / "torchserve")
        left_out = _openvino(unpacked, model, new / "openvino" / "1")
        card = {"model": {"name": name, "version": version, "digest": digest}} | model.describe()
        if not left_out:
            card = {"labels": model.labels, "digest": digest, "scores": "logits", "output": "logits"}
            card |= {**model.head.describe(), "pixels": _pixels(model)}
            card |= {"review": model.settings.review} if model.settings.review else {}
        (new / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
        target = folder / name
        if left_out:  # an earlier archive's graph must not stand beside this one's card
            shutil.rmtree(target / "openvino" / "1", ignore_errors=True)
        written = _publish(new, target)
    return {
        "name": name,
        "version": version,
        "digest": digest,
        "folder": str(target),
        "written": written,
        "left_out": left_out,
    }


def render_config(template: str, archive: str) -> str:
    """Write TorchServe's configuration for a pod of KServe.

    Args:
        template: Text of the shipped `config.properties`, whose other lines stay as they are.
        archive: File name of the archive.

    Raises:
        ConfigurationError: The template lacks a line that must be changed.
    """
    changed = {**_CHANGED, "load_models": (archive, "The archive of this storage.")}
    lines, shipped = [], ""
    for line in template.splitlines():
        key, _, value = line.partition("=")
        if key == "model_store":
            shipped = value
        if key == "allowed_urls":
            lines.append(
                line.replace(f"file://{shipped or '/srv/model_store'}/", f"file://{MOUNT}/model-store/")
            )
        elif key in changed:
            while lines and lines[-1].startswith("#"):
                lines.pop()  # the reason of the value that was there
            new, reason = changed.pop(key)
            lines += [f"# {reason}", f"{key}={new}"]
        else:
            lines.append(line)
    if changed:
        raise ConfigurationError(f"config.properties has no {', '.join(changed)}: correct paths.handlers")
    return "\n".join(lines) + "\n"


def _unpack(mar: Path, folder: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(mar) as archive:
            archive.extractall(folder)
        found = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text("utf-8"))
        manifest: dict[str, Any] = found["model"]
        name = str(manifest["modelName"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{mar} is no model archive: {error}") from error
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{mar}: its model's name {name!r} has more than letters, digits, . _ and -")
    return manifest


def _require_record(mar: Path, digest: str) -> None:
    """Hold an archive to the record that was written beside it, where there is one."""
    record = read_json(mar.with_suffix(".json"))
    if record and (record["digest"] != digest or record["mar_sha256"] != sha256_file(mar)):
        raise DataError(
            f"{mar} is not the archive that {mar.with_suffix('.json').name} describes: make it again"
        )


def _load(folder: Path) -> Any:
    try:
        return load_archive(folder)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the archive cannot be loaded: {error}") from error


def _torchserve(mar: Path, name: str, handlers: Path, folder: Path) -> None:
    template = handlers / "config.properties"
    if not template.is_file():
        raise ConfigurationError(f"no {template}: correct paths.handlers")
    for part in ("config", "model-store"):
        (folder / part).mkdir(parents=True)
    text = render_config(template.read_text("utf-8"), f"{name}.mar")
    (folder / "config" / "config.properties").write_text(text, "utf-8")
    shutil.copyfile(mar, folder / "model-store" / f"{name}.mar")


def _openvino(unpacked: Path, model: Any, folder: Path) -> str:
    """Write the graph for OpenVINO Model Server, or say why this archive has none that answers as it does."""
    engine = model.settings.engine
    if engine not in {*EXACT, "onnxruntime"}:
        return f"openvino: what {engine} computes is more than one float32 graph"
    if not all((unpacked / file).is_file() for file in Engine.registered["openvino"].files):
        return "openvino: the archive holds no model.xml"
    folder.mkdir(parents=True)
    write_model(ov.Core().read_model(unpacked / "model.xml"), folder / "model.xml", model)
    return ""


def _pixels(model: Any) -> dict[str, Any]:
    """Say how a file becomes the graph's input, as a model card has it."""
    described = model.describe()["input"]
    kept = {key: value for key, value in described.items() if key not in {"channels", "pixels"}}
    tensor = {"version": described["pixels"], "datatype": "UINT8", "layout": "NCHW"}
    return tensor | kept | {"max_pixels": model.settings.max_pixels}


def _publish(new: Path, target: Path) -> list[str]:
    """Bring files to their place, each whole, the archive last; return those that were not there."""
    written = []
    files = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
    for file in sorted(files, key=lambda path: (path.suffix == ".mar", path)):
        there = target / file
        if not there.is_file() or sha256_file(there) != sha256_file(new / file):
            with publish(there) as temporary:
                shutil.copyfile(new / file, temporary)
            written.append(file.as_posix())
    return written
