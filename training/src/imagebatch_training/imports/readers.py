"""The kinds of models that are read, and how each is told from the others: by content, not by suffix."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import sha256_file
from imagebatch_training.imports.architectures import read_published
from imagebatch_training.imports.network import OnnxNetwork, OpenVinoNetwork, Shape, Source, TorchNetwork
from imagebatch_training.imports.request import Request
from imagebatch_training.imports.weights import read_weights


class Reader(NamedTuple):
    """One kind of models.

    Attributes:
        kind: Its name, in certificates.
        accepts: Whether a file is one; a file that several accept is of the first of them.
        read: Reads it.
    """

    kind: str
    accepts: Callable[[Path], bool]
    read: Callable[[Path, Request], Source]


def read_source(request: Request) -> Source:
    """Read the model that is to be imported.

    Raises:
        ConfigurationError: There is no such file or name, or an architecture is missing or too many.
        DataError: The file is damaged, or of no kind that is read.
        DownloadError: Published weights are not there and cannot be fetched.
    """
    if request.source.startswith("torchvision:"):
        return read_published(request.source)
    path = Path(request.source)
    if request.source.startswith("timm:"):
        raise ConfigurationError(
            f"{request.source}: give the file of its weights, and --arch {request.source}"
        )
    if not path.is_file():
        raise ConfigurationError(f"no file {path}: give one, or torchvision:NAME")
    reader = next((reader for reader in READERS if reader.accepts(path)), None)
    if reader is None:
        raise DataError(f"{path.name} is of no kind that is read: {', '.join(r.kind for r in READERS)}")
    if request.arch and reader.kind != _WEIGHTS:
        raise ConfigurationError(f"{path.name} is a whole model ({reader.kind}): leave out --arch")
    return reader.read(path, request)


def _members(path: Path) -> list[str]:
    """List what a zip holds below its first folder; of any other file, nothing."""
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return []


def _is_onnx(path: Path) -> bool:
    return path.suffix == ".onnx"


def _is_ir(path: Path) -> bool:
    return path.suffix == ".xml"


def _is_exported(path: Path) -> bool:
    return "archive_format" in _members(path) or path.suffix == ".pt2"


def _is_scripted(path: Path) -> bool:
    members = _members(path)
    return "constants.pkl" in members and any(name.startswith("code/") for name in members)


def _is_weights(path: Path) -> bool:
    return path.suffix in (".pt", ".pth", ".safetensors", ".ckpt", ".bin", ".tar") or "data.pkl" in _members(
        path
    )


def _read_onnx(path: Path, _: Request) -> Source:
    network = OnnxNetwork(path)
    return Source(kind="onnx", name=path.stem, network=network, sha256={path.name: sha256_file(path)})


def _read_ir(path: Path, _: Request) -> Source:
    network = OpenVinoNetwork(path)
    files = (path, path.with_suffix(".bin"))
    return Source(
        kind="openvino",
        name=path.stem,
        network=network,
        sha256={file.name: sha256_file(file) for file in files},
    )


def _read_exported(path: Path, _: Request) -> Source:
    try:
        program = torch.export.load(path)
        module = program.module()
    except Exception as error:
        raise DataError(
            f"{path.name} is no exported program that this torch reads: {_line(error)}"
        ) from error
    shapes = [_shape(program, name) for name in program.graph_signature.user_inputs]
    if len(shapes) != 1:
        raise DataError(f"{path.name} takes {len(shapes)} inputs: a classifier of images takes one")
    network = TorchNetwork(module, shapes[0], program)
    return Source(kind="torch.export", name=path.stem, network=network, sha256={path.name: sha256_file(path)})


def _shape(program: torch.export.ExportedProgram, name: Any) -> Shape:
    (node,) = (node for node in program.graph.nodes if node.name == name)
    return tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)


def _read_scripted(path: Path, _: Request) -> Source:
    import warnings  # noqa: PLC0415 - only for such a file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]  # torch's
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{path.name} is no TorchScript that this torch reads: {_line(error)}") from error
    return Source(
        kind="torchscript",
        name=path.stem.removesuffix(".ts"),
        network=TorchNetwork(module, (), scripted=True),
        sha256={path.name: sha256_file(path)},
        notes=["torch is giving TorchScript up: keep the state_dict, or export the model with torch.export"],
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


_WEIGHTS: Final = "state_dict"
READERS: Final = (
    Reader("onnx", _is_onnx, _read_onnx),
    Reader("openvino", _is_ir, _read_ir),
    Reader("torch.export", _is_exported, _read_exported),
    Reader("torchscript", _is_scripted, _read_scripted),
    Reader(_WEIGHTS, _is_weights, lambda path, request: read_weights(path, request.arch)),
)
"""Another kind of models is one more."""
