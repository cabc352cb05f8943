"""An unpacked archive, loaded as its server loads it."""

from pathlib import Path

import torch
import yaml
from imagebatch_model import ImageModel  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
from imagebatch_model import Settings as HandlerSettings


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
