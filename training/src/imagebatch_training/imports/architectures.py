"""Architectures by name: torchvision's and timm's, with the preprocessing that each library declares."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch
import torchvision  # type: ignore[import-untyped]  # ships no type marker
from torch import nn

from imagebatch_training.backbone.download import fetch
from imagebatch_training.errors import ConfigurationError, DownloadError
from imagebatch_training.files import publish, sha256_file
from imagebatch_training.imports.network import Source, TorchNetwork, Transform
from imagebatch_training.imports.preprocessing import Declared
from imagebatch_training.imports.torch_files import tensors

SECONDS: Final = 10.0
"""To wait for torchvision's server."""
# Built from published weights they normalise a second time inside, which a state_dict does not tell.
_TRANSFORM_INSIDE: Final = ("googlenet", "inception_v3")
_PLANES: Final = 3


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A named architecture.

    Attributes:
        name: `torchvision:resnet18`.
        build: Makes it with so many classes, untrained, in evaluation mode.
        declared: What its library says of preprocessing.
        transform: The library's own preprocessing.
    """

    name: str
    build: Callable[[int], nn.Module]
    declared: Declared | None
    transform: Transform | None


def find_architecture(text: str) -> Architecture:
    """Find an architecture.

    Args:
        text: `torchvision:NAME[@WEIGHTS]` or `timm:NAME`.

    Raises:
        ConfigurationError: There is none of that name.
    """
    library, _, name = text.partition(":")
    if not name or library not in _LIBRARIES:
        raise ConfigurationError(
            f"--arch {text}: say torchvision:NAME or timm:NAME, as in torchvision:resnet18"
        )
    return _LIBRARIES[library](name)


def read_published(text: str) -> Source:
    """Read a classifier with the weights that torchvision has published for it.

    Args:
        text: `torchvision:NAME[@WEIGHTS]`; without `@`, the weights that torchvision calls its default.

    Raises:
        ConfigurationError: There are none of that name.
        DownloadError: The weights are not there and cannot be fetched.
    """
    name, weights = _published(text.partition(":")[2])
    file = _weights_file(weights)
    tensors(file)  # read as tensors alone before torchvision reads it: the cache is a folder like any other
    network = torchvision.models.get_model(name, weights=weights).eval()
    return Source(
        kind="torchvision",
        name=name,
        network=TorchNetwork(network),
        sha256={file.name: sha256_file(file)},
        declared=_declared(weights),
        transform=_applied(weights.transforms()),
        labels=(tuple(weights.meta["categories"]), str(weights)),
        classes=len(weights.meta["categories"]),
        published=True,
    )


def _published(text: str) -> tuple[str, Any]:
    name, _, wanted = text.partition("@")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigurationError(
            f"torchvision has no classifier {name!r}: {_near(name, known)}, or one of its documentation"
        )
    weights = torchvision.models.get_model_weights(name)
    try:
        return name, weights[wanted] if wanted else weights.DEFAULT
    except KeyError as error:
        raise ConfigurationError(
            f"torchvision has no weights {wanted!r} for {name}: {', '.join(weights.__members__)}"
        ) from error


def _weights_file(weights: Any) -> Path:
    """Find the weights where torchvision keeps what it has fetched, or fetch them to there."""
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    sha256 = found[1] if found else ""
    if not path.is_file():
        try:
            data = fetch(weights.url, sha256, SECONDS)
        except DownloadError as error:
            raise DownloadError(f"{error}; fetch it elsewhere and put it to {path}") from error
        with publish(path) as temporary:
            temporary.write_bytes(data)
    return path


def _declared(weights: Any) -> Declared:
    """Say what torchvision's preset of a classifier does, from its attributes."""
    preset = weights.transforms()
    says = {
        "resize": int(preset.resize_size[0]),
        "crop": int(preset.crop_size[0]),
        "fit": "crop",
        "interpolation": str(preset.interpolation.value),
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "pixel_range": "0-1",
        "channel_order": "rgb",
        "outputs": "logits",
    }
    return Declared(str(weights), says)


def _torchvision(text: str) -> Architecture:
    name, weights = _published(text)
    if name in _TRANSFORM_INSIDE:
        raise ConfigurationError(
            f"--arch torchvision:{name}: it may normalise inside, which its weights do not tell: "
            "export it with torch.export or as ONNX, and import that"
        )
    return Architecture(
        name=f"torchvision:{name}",
        build=lambda classes: torchvision.models.get_model(name, weights=None, num_classes=classes).eval(),
        declared=_declared(weights),
        transform=_applied(weights.transforms()),
    )


def _timm(name: str) -> Architecture:
    try:
        timm: Any = import_module("timm")
        data: Any = import_module("timm.data")
    except ImportError as error:
        raise ConfigurationError(
            f"--arch timm:{name} needs timm: uv sync --project training --extra import"
        ) from error
    if not timm.is_model(name.partition(".")[0]):
        raise ConfigurationError(f"timm has no model {name!r}: {_near(name, timm.list_models())}")
    pretrained = timm.get_pretrained_cfg(name, allow_unregistered=True)
    config = data.resolve_data_config({}, pretrained_cfg=pretrained.to_dict() if pretrained else {})
    declared = _declared_by_timm(config, f"timm's pretrained_cfg of {name}") if pretrained else None
    return Architecture(
        name=f"timm:{name}",
        build=lambda classes: timm.create_model(name, pretrained=False, num_classes=classes).eval(),
        declared=declared,
        transform=_applied(data.create_transform(**config, is_training=False)) if declared else None,
    )


def _declared_by_timm(config: dict[str, Any], by: str) -> Declared | None:
    """Say what timm's transform for evaluation does; None where it is none that an archive can do."""
    planes, high, wide = config["input_size"]
    if planes != _PLANES or high != wide or config["interpolation"] not in ("bilinear", "bicubic"):
        return None
    fits = {"center": "crop", "squash": "squash", "border": "pad"}
    mean = tuple(config["mean"])
    filled = "#" + "".join(f"{round(255 * value):02x}" for value in mean)
    says = {
        "resize": math.floor(high / config["crop_pct"]),
        "crop": high,
        "fit": fits[config["crop_mode"] or "center"],
        "interpolation": config["interpolation"],
        "padding": filled,
        "mean": mean,
        "std": tuple(config["std"]),
        "pixel_range": "0-1",
        "channel_order": "rgb",
        "outputs": "logits",
    }
    return Declared(by, says)


def _applied(preset: Callable[[Any], Any]) -> Transform:
    """Make a library's transform give an array."""
    return lambda picture: preset(picture).numpy()


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    near = get_close_matches(name, known, n=3, cutoff=0.4)
    return f"near are {', '.join(near)}" if near else "there is none like it"


_LIBRARIES: Final[dict[str, Callable[[str], Architecture]]] = {"torchvision": _torchvision, "timm": _timm}
