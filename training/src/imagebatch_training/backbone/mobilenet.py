"""MobileNetV2 as torchvision builds it, with the padding and normalisation of its weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import nn
from torchvision.models import (  # type: ignore[import-untyped]  # ships no type marker
    MobileNetV2,
    mobilenet_v2,
)

# MobileNetV2 among them: this is the one module that imports torchvision.
__all__ = [
    "METADATA",
    "BottomRightConv2d",
    "Convention",
    "MobileNetV2",
    "Normalise",
    "ServedModel",
    "build",
    "load_backbone",
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


class ServedModel(nn.Module):
    """Normalisation and network in one graph.

    Args:
        network: From `build`.
        convention: Of its weights.
    """

    def __init__(self, network: MobileNetV2, convention: Convention) -> None:
        super().__init__()
        self.normalise = Normalise(convention)
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (batch, 3, crop, crop) into float32 logits (batch, classes)."""
        logits: torch.Tensor = self.network(self.normalise(x))
        return logits


def build(padding: Padding, classes: int) -> MobileNetV2:
    """Build torchvision's MobileNetV2, untrained, in evaluation mode.

    Args:
        padding: Convention of the weights to be loaded. It changes no name and no shape of the state_dict.
        classes: Outputs of the classifier.

    Returns:
        The network, channels last in memory: twice as fast on a CPU.
    """
    network = mobilenet_v2(num_classes=classes)
    if padding == "tensorflow":
        for module in list(network.modules()):
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.__class__ = BottomRightConv2d
                module.padding = (0, 0)
    return network.eval().to(memory_format=torch.channels_last)


def load_backbone(path: Path, classes: int) -> tuple[MobileNetV2, Convention]:
    """Build the network that a weights file describes, with its backbone loaded and a new classifier.

    Args:
        path: Written by `imagebatch-train weights`.
        classes: Outputs of the classifier.

    Returns:
        The network in evaluation mode, and how its weights want to be used.
    """
    state, convention = read_weights(path)
    network = build(convention.padding, classes)
    head = {name: value for name, value in network.state_dict().items() if name.startswith("classifier.")}
    network.load_state_dict(state | head, strict=True)
    return network, convention


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], Convention]:
    """Read a weights file: its tensors and its convention."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    mean, std = tuple(metadata["mean"]), tuple(metadata["std"])
    return state, Convention(padding=metadata["padding"], mean=mean, std=std)
