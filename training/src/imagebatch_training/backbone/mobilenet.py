"""MobileNetV2 as torchvision builds it, with the padding and normalisation of its weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors import safe_open
from torch import nn
from torchvision.models import (  # type: ignore[import-untyped]  # ships no type marker
    MobileNetV2,
    mobilenet_v2,
)

from imagebatch_training.cut import WHOLE, Cut

# MobileNetV2 among them: this is the one module that imports torchvision.
__all__ = [
    "METADATA",
    "BottomRightConv2d",
    "Convention",
    "CutNetwork",
    "MobileNetV2",
    "Network",
    "Normalise",
    "ServedModel",
    "build",
    "load_backbone",
    "pool",
    "read_cut",
    "read_weights",
]

Padding = Literal["torch", "tensorflow"]
METADATA = "imagebatch"
"""Key of the file's metadata: JSON with source, padding, mean and std."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How weights want to be used.

    Attributes:
        padding: Of stride-2 convolutions: `torch`: 1 on every side; `tensorflow`: 1 at the bottom and right.
        mean: Subtracted per channel, of pixels scaled to 0..1.
        std: Divided by, per channel.
    """

    padding: Padding
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class BottomRightConv2d(nn.Conv2d):
    """A stride-2 convolution that pads as TensorFlow's "same" does for even sizes: bottom and right."""

    __module__ = "imagebatch_training.backbone"  # an exported program records it: the room, not the file

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (batch, in, height, width), height and width even, to (batch, out, height/2, width/2)."""
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Normalise(nn.Module):
    """Scales uint8 pixels to what the weights expect.

    Args:
        convention: Of the weights.
    """

    __module__ = "imagebatch_training.backbone"  # an exported program records it: the room, not the file

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, convention: Convention) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(convention.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(convention.std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn uint8 (batch, 3, height, width), 0..255, into float32 of the same shape."""
        return (x.to(torch.float32) - self.mean) / self.std


_LEAST = 1e-6  # added to a variance: its root has no slope at nought


def pool(x: torch.Tensor, pooling: tuple[str, ...]) -> torch.Tensor:
    """Turn activations (batch, channels, height, width) into features (batch, channels x statistics)."""
    mean = x.mean((2, 3), keepdim=True)
    found = {"mean": lambda: mean, "max": lambda: x.amax((2, 3)), "std": lambda: _deviation(x, mean)}
    return torch.cat([found[name]().flatten(1) for name in pooling], 1)


def _deviation(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return ((x - mean).square().mean((2, 3)) + _LEAST).sqrt()


class CutNetwork(nn.Module):
    """The lower part of a network, its pooling and a classifier; what lies above is not computed.

    Args:
        network: Its layers are taken, not copied.
        cut: Where it ends.
        classes: Outputs of the classifier.

    Attributes:
        last_channel: Features: channels x statistics.
    """

    __module__ = "imagebatch_training.backbone"  # an exported program records it: the room, not the file

    def __init__(self, network: MobileNetV2, cut: Cut, classes: int) -> None:
        super().__init__()
        last = network.features[cut.last]
        layers = [*network.features[: cut.last], last.conv[0] if cut.layer != str(cut.last) else last]
        self.features = nn.Sequential(*layers)
        self.pooling = cut.pooling
        channels = next(m for m in reversed([*layers[-1].modules()]) if isinstance(m, nn.BatchNorm2d))
        self.last_channel = channels.num_features * len(cut.pooling)
        # Any, as torchvision's is to type checkers.
        self.classifier: Any = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.last_channel, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn normalised pixels (batch, 3, height, width) into logits (batch, classes)."""
        logits: torch.Tensor = self.classifier(pool(self.features(x), self.pooling))
        return logits


Network: TypeAlias = MobileNetV2 | CutNetwork
"""torchvision's network, whole, or the part of it that is used."""


class ServedModel(nn.Module):
    """Normalisation and network in one graph.

    Args:
        network: From `build`.
        convention: Of its weights.
    """

    def __init__(self, network: Network, convention: Convention) -> None:
        super().__init__()
        self.normalise = Normalise(convention)
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (batch, 3, crop, crop) into float32 logits (batch, classes)."""
        logits: torch.Tensor = self.network(self.normalise(x))
        return logits


def build(padding: Padding, classes: int, cut: Cut = WHOLE) -> Network:
    """Build torchvision's MobileNetV2, or the part of it that is used, untrained, in evaluation mode.

    Args:
        padding: Convention of the weights to be loaded. It changes no name and no shape of the state_dict.
        classes: Outputs of the classifier.
        cut: Where it ends.

    Returns:
        The network, channels last in memory: twice as fast on a CPU.
    """
    whole = _whole(padding, classes)
    network = whole if cut == WHOLE else CutNetwork(whole, cut, classes)
    return network.eval().to(memory_format=torch.channels_last)


def _whole(padding: Padding, classes: int) -> MobileNetV2:
    network = mobilenet_v2(num_classes=classes)
    if padding == "tensorflow":
        for module in list(network.modules()):
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.__class__ = BottomRightConv2d
                module.padding = (0, 0)
    return network


def load_backbone(path: Path, classes: int, cut: Cut = WHOLE) -> tuple[Network, Convention]:
    """Build the network that a weights file describes, with its backbone loaded and a new classifier.

    Args:
        path: Written by `imagebatch-train weights`.
        classes: Outputs of the classifier.
        cut: Where it ends.

    Returns:
        The network in evaluation mode, and how its weights want to be used.
    """
    state, convention = read_weights(path)
    network = _whole(convention.padding, classes)
    head = {name: value for name, value in network.state_dict().items() if name.startswith("classifier.")}
    network.load_state_dict(state | head, strict=True)
    used: Network = network if cut == WHOLE else CutNetwork(network, cut, classes)
    return used.eval().to(memory_format=torch.channels_last), convention


def read_cut(path: Path) -> Cut:
    """Read where the network of a weights file ends: whole, where the file does not say."""
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()[METADATA]).get("cut")
    return Cut(layer=said["layer"], pooling=tuple(said["pooling"])) if said else WHOLE


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], Convention]:
    """Read a weights file: its tensors and its convention."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    mean, std = tuple(metadata["mean"]), tuple(metadata["std"])
    return state, Convention(padding=metadata["padding"], mean=mean, std=std)
