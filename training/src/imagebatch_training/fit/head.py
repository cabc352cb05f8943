"""The trained part of the network: the last blocks and the classifier, on cached activations."""

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from imagebatch_training.backbone.mobilenet import Network, pool
from imagebatch_training.fit.activations import Activations, pooling_of

_BATCH = 128


class Head(nn.Module):
    """`features[first:]`, pooling and the classifier of a network.

    Args:
        network: Its last blocks are copied.
        first: First block that belongs to the head.
        dropout: Share of the features dropped in training mode.
    """

    def __init__(self, network: Network, first: int, dropout: float) -> None:
        super().__init__()
        self.first = first
        self.blocks = copy.deepcopy(network.features[first:])
        self.pooling = pooling_of(network)
        self.classifier = nn.Linear(network.last_channel, network.classifier[1].out_features)
        self.dropout = dropout

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Turn activations (batch, channels, height, width) into pooled features (batch, width)."""
        return pool(self.blocks(x.contiguous(memory_format=torch.channels_last)), self.pooling)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn activations (batch, channels, height, width) into logits (batch, classes)."""
        dropped = nn.functional.dropout(self.features(x), self.dropout, self.training)
        logits: torch.Tensor = self.classifier(dropped)
        return logits

    @torch.inference_mode()
    def compute_logits(self, activations: Activations) -> npt.NDArray[np.float32]:
        """Compute float32 logits (images, classes), without dropout."""
        self.eval()
        device = self.classifier.weight.device
        parts = [self(x.to(device)).cpu() for x in _batches(activations)]
        logits: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return logits

    def install(self, network: Network, temperature: float) -> None:
        """Put the trained blocks and classifier back into a network.

        Args:
            network: Changed in place.
            temperature: Divides the logits; folded into the classifier, so that serving needs no extra step.
        """
        network.features[self.first :].load_state_dict(self.blocks.state_dict())
        with torch.no_grad():
            network.classifier[1].weight.copy_(self.classifier.weight / temperature)
            network.classifier[1].bias.copy_(self.classifier.bias / temperature)


def _batches(activations: Activations) -> list[torch.Tensor]:
    return [
        torch.from_numpy(np.array(activations[i : i + _BATCH])) for i in range(0, len(activations), _BATCH)
    ]
