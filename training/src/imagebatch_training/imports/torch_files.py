"""Tensors out of files of weights, without running what a pickle may hold."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from imagebatch_training.errors import DataError

_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts keep a state_dict beside an optimiser, an epoch and the like."""
_NAMES: Final = ("class_to_idx", "classes", "class_names", "labels")
"""Keys beside it that hold the names of the classes."""

State = dict[str, torch.Tensor]


def tensors(path: Path) -> tuple[State, Mapping[str, Any]]:
    """Read a state_dict.

    Args:
        path: `.safetensors`, or what `torch.save` has written.

    Returns:
        The tensors by name, and what lay beside them.

    Raises:
        DataError: The file is damaged, holds a whole pickled model, or no tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path), {}
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path.name} is no safetensors file: {_line(error)}") from error
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(_why_not(path)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path.name} is no file of torch.save, or is damaged: {_line(error)}") from error
    return _unwrapped(saved, path)


def class_names(beside: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Find the classes' names beside a state_dict: a list, or a mapping from name to index."""
    for key in _NAMES:
        found = beside.get(key)
        if isinstance(found, Mapping) and sorted(map(str, found.values())) == sorted(
            map(str, range(len(found)))
        ):
            found = sorted(found, key=lambda name: int(beside[key][name]))
        if isinstance(found, list | tuple) and found and all(isinstance(name, str) for name in found):
            return tuple(found)
    return None


def _unwrapped(saved: Any, path: Path) -> tuple[State, Mapping[str, Any]]:
    beside: dict[str, Any] = {}
    while isinstance(saved, Mapping):
        if saved and all(isinstance(value, torch.Tensor) for value in saved.values()):
            return {str(name): value for name, value in saved.items()}, beside
        inner = next((saved[key] for key in _WRAPPERS if isinstance(saved.get(key), Mapping)), None)
        if inner is None:
            break
        beside |= {str(key): value for key, value in saved.items() if value is not inner}
        saved = inner
    keys = f", keys {', '.join(map(str, list(saved)[:5]))}" if isinstance(saved, Mapping) else ""
    raise DataError(
        f"{path.name} holds no state_dict that is recognised ({type(saved).__name__}{keys}): "
        "save model.state_dict() alone"
    )


def _why_not(path: Path) -> str:
    """Say what a refused pickle holds."""
    try:
        unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        unsafe = []
    how = f"in the code that made it, torch.save(model.state_dict(), {path.name!r}), and name it with --arch"
    if any(name.startswith("torch.nn.modules.") for name in unsafe):
        kind = next((name for name in unsafe if not name.startswith("torch.")), "of torch.nn")
        what = f"{path.name} is a whole pickled model ({kind}), which runs code when it is read"
        return f"{what}: save its weights, {how}"
    kind = ", ".join(unsafe[:3]) or "of a kind that torch does not name"
    return (
        f"{path.name} holds Python objects beside tensors ({kind}), which run code when they are read: {how}"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
