"""A network of one convolution: what exports and precisions do to it is computed in milliseconds."""

from pathlib import Path

import numpy as np
import openvino as ov
import torch
from imagebatch_training.export.calibration import Calibration
from imagebatch_training.export.graphs import write_graph
from torch import nn


class Tiny(nn.Module):
    """uint8 (1, 3, side, side) to logits (1, 3) and features (1, 16), like the graphs of an archive."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.convolution(x.to(torch.float32) / 255 - 0.5)).mean((2, 3))
        return self.classifier(features), features


def write_tiny(path: Path, side: int) -> Tiny:
    """Write the network as an OpenVINO graph, the way that the exports do."""
    network = Tiny().eval()
    example = torch.zeros((1, 3, side, side), dtype=torch.uint8)
    graph = ov.convert_model(torch.export.export(network, (example,)))
    graph.reshape(list(example.shape))
    write_graph(graph, path)
    return network


def some_images(count: int, side: int, seed: int = 0) -> Calibration:
    """Images of noise on grounds of different brightness; every second one sets the ranges of 8 bits."""
    random = np.random.default_rng(seed)
    ground = random.integers(0, 200, size=(count, 3, 1, 1))
    pixels = (ground + random.integers(0, 56, size=(count, 3, side, side))).astype(np.uint8)
    members = np.arange(count)
    return Calibration(pixels=pixels, members=members, statistics=members[::2], folds=members % 5)
