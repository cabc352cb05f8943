"""What an archive consists of, and the digest that names its content. Standard library only."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_SHARED: Final = (
    "imagebatch_colour.py",
    "imagebatch_deep.py",
    "imagebatch_formats.py",
    "imagebatch_gif.py",
    "imagebatch_header.py",
    "imagebatch_inside.py",
    "imagebatch_jpeg.py",
    "imagebatch_jxl.py",
    "imagebatch_open.py",
    "imagebatch_picture.py",
    "imagebatch_tiff.py",
    "imagebatch_upright.py",
)  # with the stages: they lie in ../pipeline_image/picture

MODULES: Final = (
    "imagebatch_handler.py",
    "imagebatch_archive.py",
    "imagebatch_engines.py",
    "imagebatch_heads.py",
    "imagebatch_memory.py",
    "imagebatch_model.py",
    "imagebatch_pixels.py",
    "imagebatch_wire.py",
    *_SHARED,
)
"""The source files that every archive carries; the first is the handler."""

PARITY: Final = "parity.json"
"""The certificate of how far an archive's answers are from float32 torch; not every archive has one."""

_CHUNK: Final = 1 << 20


def module_path(name: str, handlers: str | Path) -> Path:
    """Find the source of one of `MODULES`.

    Args:
        name: Of the file.
        handlers: Folder of the handler's modules. What they share with the pipeline may lie where it is
            installed.

    Raises:
        FileNotFoundError: It is in neither place.
    """
    path = Path(handlers) / name
    if not path.is_file() and name in _SHARED:
        found = find_spec(path.stem)
        path = Path(found.origin) if found and found.origin else path
    if not path.is_file():
        raise FileNotFoundError(f"no {path}")
    return path


def content_digest(folder: str | Path) -> str:
    """Name the content of an unpacked archive, independent of times, order and packing.

    Args:
        folder: An unpacked `.mar`. `MAR-INF/` (the time of packing) and Python's caches do not count.

    Returns:
        `sha256:` and the hex SHA-256 of the sorted lines `<sha256 of file>  <file name>`, each ended by a
        newline; file names are relative to `folder`, with `/`.

    Raises:
        FileNotFoundError: The folder does not exist or holds no file that counts.
    """
    root = Path(folder)
    files = [path for path in root.rglob("*") if path.is_file() and _counts(path.relative_to(root))]
    if not files:
        raise FileNotFoundError(f"no files of a model archive in {root}")
    lines = sorted(f"{_sha256(path)}  {path.relative_to(root).as_posix()}\n" for path in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str | None:
    """Name the content of one file: `sha256:` and its hex SHA-256; None where there is no such file."""
    return f"sha256:{_sha256(path)}" if path.is_file() else None


def _counts(path: Path) -> bool:
    return path.parts[0] != "MAR-INF" and "__pycache__" not in path.parts and path.suffix != ".pyc"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
