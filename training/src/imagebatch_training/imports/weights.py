"""Weights from a file into a named architecture, whatever the training script has called them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import nn

from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import sha256_file
from imagebatch_training.imports.architectures import Architecture, find_architecture
from imagebatch_training.imports.network import Source, TorchNetwork
from imagebatch_training.imports.torch_files import State, class_names, tensors

_MARK: Final = 1237
"""A number of classes that no other layer has: the parameters of that size are the head."""
_PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.", "network.", "classifier_model.", "backbone.")
"""What wrappers put before names: DataParallel, torch.compile, Lightning, and classes around a model."""
_SHOWN: Final = 3

Shapes = Mapping[str, torch.Size]


def read_weights(path: Path, arch: str | None) -> Source:
    """Read a state_dict into its architecture.

    Args:
        path: `.pt`, `.pth`, `.safetensors` and the like.
        arch: `torchvision:NAME` or `timm:NAME`.

    Raises:
        ConfigurationError: No architecture is named, or there is none of that name.
        DataError: The file holds no weights, or those of another architecture.
    """
    state, beside = tensors(path)
    if arch is None:
        raise ConfigurationError(
            f"{path.name} holds weights alone: name their architecture, --arch torchvision:NAME or timm:NAME"
        )
    architecture = find_architecture(arch)
    network, classes, notes = _load(state, architecture, path.name)
    names = class_names(beside)
    return Source(
        kind="state_dict",
        name=path.stem,
        network=TorchNetwork(network),
        sha256={path.name: sha256_file(path)},
        declared=architecture.declared,
        transform=architecture.transform,
        labels=(names, path.name) if names else None,
        classes=classes,
        notes=notes,
    )


def _load(state: State, architecture: Architecture, file: str) -> tuple[nn.Module, int, list[str]]:
    marked = architecture.build(_MARK).state_dict()
    shapes = {name: value.shape for name, value in marked.items()}
    heads = [name for name, shape in shapes.items() if len(shape) > 1 and shape[0] == _MARK]
    state, notes = _renamed(state, shapes)
    if heads and heads[-1] not in state:
        state, more = _head_renamed(state, shapes, heads[-1])
        notes += more
    if not heads or heads[-1] not in state:
        raise _unfit(state, shapes, architecture.name, file)
    classes = state[heads[-1]].shape[0]
    network = architecture.build(classes)
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if any(name not in state and not _may_miss(name) for name in wanted) or _misshapen(state, wanted):
        raise _unfit(state, wanted, architecture.name, file)
    extra = [name for name in state if name not in wanted]
    if extra:
        notes.append(
            f"{len(extra)} tensors of {file} are not of {architecture.name} and left out: {_few(extra)}"
        )
    fitting = {
        name: value.to(torch.get_default_dtype()) if value.is_floating_point() else value
        for name, value in state.items()
        if name in wanted
    }
    network.load_state_dict(fitting, strict=False)  # what may miss is a counter
    return network, classes, notes


def _renamed(state: State, shapes: Shapes) -> tuple[State, list[str]]:
    """Take off the prefixes with which the most names are the architecture's."""
    stripped: list[str] = []
    while True:
        fitting = sum(name in shapes for name in state)
        tries = {prefix: sum(name.removeprefix(prefix) in shapes for name in state) for prefix in _PREFIXES}
        if not fitting and not any(tries.values()):  # two prefixes: take off one that all names have
            tries = {p: int(all(name.startswith(p) for name in state)) for p in _PREFIXES}
        best = max(tries, key=lambda prefix: tries[prefix])
        if tries[best] <= fitting:
            break
        state = {name.removeprefix(best): value for name, value in state.items()}
        stripped.append(best)
    return state, [f"prefix {''.join(stripped)} taken off the names of the weights"] if stripped else []


def _head_renamed(state: State, shapes: Shapes, head: str) -> tuple[State, list[str]]:
    """Find a last layer in the place of the architecture's, as `fc = Sequential(Dropout, Linear)`."""
    place = head.split(".", maxsplit=1)[0] + "."
    others = [name for name in state if name not in shapes and name.startswith(place)]
    found = [
        name for name in others if name.endswith(".weight") and state[name].shape[1:] == shapes[head][1:]
    ]
    if len(found) != 1 or set(others) - {found[0], found[0].removesuffix("weight") + "bias"}:
        return state, []
    old, new = found[0].removesuffix("weight"), head.removesuffix("weight")
    renamed = {name.replace(old, new, 1) if name in others else name: value for name, value in state.items()}
    return renamed, [
        f"the last layer is called {old.rstrip('.')} and is the architecture's {new.rstrip('.')}"
    ]


def _may_miss(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # of training alone


def _misshapen(state: State, wanted: Shapes) -> list[str]:
    return [name for name in wanted if name in state and state[name].shape != wanted[name]]


def _unfit(state: State, wanted: Shapes, arch: str, file: str) -> DataError:
    missing = [name for name in wanted if name not in state and not _may_miss(name)]
    extra = [name for name in state if name not in wanted]
    shapes = _misshapen(state, wanted)
    said = [
        f"{len(names)} {what} ({_few(names)})"
        for names, what in ((missing, "are missing"), (extra, "are not of it"), (shapes, "have other shapes"))
        if names
    ]
    return DataError(f"the weights of {file} are not those of {arch}: {'; '.join(said)}: is --arch right?")


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
