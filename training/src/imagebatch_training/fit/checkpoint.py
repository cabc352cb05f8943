"""Where a fine-tune stands after an epoch, in a file: a training that was killed goes on from there."""

import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from imagebatch_training.files import publish

log = logging.getLogger(__name__)

State = dict[str, Any]
"""Tensors, numbers, texts, lists and dictionaries of them: nothing that would run code when it is read."""


def write_checkpoint(path: Path, state: State) -> None:
    """Write a checkpoint; the one before it is there until this one is whole."""
    with publish(path) as temporary:
        torch.save(state, temporary)


def read_checkpoint(path: Path) -> State | None:
    """Read a checkpoint; None where there is none, or where it is damaged, which costs its epochs alone."""
    if not path.is_file():
        return None
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        log.warning("%s cannot be read and is made again: %s", path, " ".join(str(error).split())[:200])
        return None
    return state
