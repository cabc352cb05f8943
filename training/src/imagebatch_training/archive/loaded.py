"""An archive, unpacked and loaded as its server loads it."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from imagebatch_archive import (  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
    MODULES,
    module_path,
)
from imagebatch_model import ImageModel  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
from imagebatch_model import Settings as HandlerSettings

from imagebatch_training.errors import ConfigurationError
from imagebatch_training.settings import Settings


@contextmanager
def unpacked(settings: Settings, mar: Path) -> Iterator[Path]:
    """Unpack an archive whose answers are compared with classes, for as long as it is looked at.

    Args:
        settings: `paths.handlers`, whose code the archive must hold: it is this code that is loaded.
        mar: The archive.

    Yields:
        A folder with its files.

    Raises:
        ConfigurationError: It is missing or no archive, holds other code than this, or names no single class.
    """
    if not mar.is_file():
        raise ConfigurationError(f"no {mar}: run imagebatch-train archive")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            with zipfile.ZipFile(mar) as archive:
                archive.extractall(folder)
        except zipfile.BadZipFile as error:
            raise ConfigurationError(
                f"{mar} is no archive: make it again by imagebatch-train archive"
            ) from error
        _require_softmax(folder, mar)
        handlers = Path(settings.paths.handlers)
        other = [name for name in MODULES if not _same(folder / name, handlers)]
        if other:
            raise ConfigurationError(f"{mar} holds another {other[0]} than {handlers}: make it again")
        yield folder


def _require_softmax(folder: Path, mar: Path) -> None:
    config = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8")) or {}
    head = (config.get("imagebatch") or {}).get("head", "softmax")
    if head != "softmax":
        raise ConfigurationError(f"{mar} has a {head} head: only the classes of a softmax are compared")


def _same(packed: Path, handlers: Path) -> bool:
    try:
        source = module_path(packed.name, handlers)
    except FileNotFoundError:
        return False
    return packed.is_file() and packed.read_bytes() == source.read_bytes()


def load_archive(folder: Path) -> ImageModel:
    """Load the model that an archive's files make.

    Args:
        folder: The archive's files.

    Raises:
        OSError: One is missing.
        ValueError: They do not fit each other.
    """
    config = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8"))
    threads = torch.get_num_threads()
    try:
        return ImageModel(folder, HandlerSettings.from_config(config or {}))
    finally:
        torch.set_num_threads(threads)  # the torch engine takes it down to one
