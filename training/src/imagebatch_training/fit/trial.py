"""One learning rate's training of the last blocks and the classifier, step by step."""

import copy
import logging
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from imagebatch_training.backbone.mobilenet import Network
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit.activations import Activations
from imagebatch_training.fit.head import Head
from imagebatch_training.fit.probe import ProbeFit
from imagebatch_training.fit.targets import Integers, Targets, class_weights
from imagebatch_training.progress import progress
from imagebatch_training.settings import FineTune

log = logging.getLogger(__name__)

_WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
_STEPS, _SMALLEST = 16, 8
"""A small data set gets smaller batches: so many steps an epoch, and so many images a step, at least."""


class Trial:
    """The head under training, the average of its weights, and all that decides the next step.

    Args:
        network: Its last blocks are where training starts; it is not changed.
        activations: float32 (views, images, channels, height, width).
        targets: int64 class index per image, or float32 probabilities (images, classes).
        train: Positions of the training images.
        start: Where the classifier starts.
        settings: Blocks, epochs, batches, the kind of average.
        rate: Peak learning rate of the blocks.
        seed: Of the order, the views and dropout.
        name: Said in front of the progress.
    """

    def __init__(
        self,
        network: Network,
        activations: Activations,
        targets: Targets,
        train: Integers,
        *,
        start: ProbeFit,
        settings: FineTune,
        rate: float,
        seed: int,
        name: str,
    ) -> None:
        torch.manual_seed(seed)
        self.random = np.random.default_rng(seed)
        self.activations, self.targets, self.train, self.settings = activations, targets, train, settings
        self.rate, self.name, self.step = rate, f"{name}, rate {rate:g}", 0
        self.device = choose_device(settings.device)
        self.head = start_head(network, start, settings).to(self.device)
        self.average = copy.deepcopy(self.head)
        self.steps = -(-len(train) // batch_size(len(train), settings))
        balance = class_weights(targets[train], self.head.classifier.out_features, settings.class_weights)
        self.balance = None if balance is None else balance.to(self.device)
        self.optimiser, self.schedule = self._schedule()

    def _schedule(self) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
        settings, rate, total = self.settings, self.rate, self.steps * self.settings.epochs + 1
        blocks = [value for value in self.head.blocks.parameters() if value.requires_grad]
        groups = [{"params": blocks}, {"params": [*self.head.classifier.parameters()]}]
        optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=settings.weight_decay)
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=[rate, settings.head_learning_rate or rate],
            total_steps=total,
            pct_start=max(_WARM_UP, 2 / total),  # one step at least: the schedule divides by what it rises in
        )

    def epoch(self) -> float:
        """Train on every training image once, each in a random view; return the mean loss."""
        self.head.eval()  # BatchNorm keeps ImageNet's statistics; only dropout is switched on
        self.head.training = True
        losses = []
        batches = np.array_split(self.random.permutation(self.train), self.steps)
        for chosen in progress(batches, f"{self.name}, steps"):
            views = self.random.integers(0, len(self.activations), size=len(chosen))
            batch = np.stack([self.activations[v, i] for v, i in zip(views, chosen, strict=True)])
            loss = self._loss(batch, self.targets[chosen])
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.optimiser.step()
            self.schedule.step()
            self._update_average()
            losses.append(loss.item() * len(chosen))
        return sum(losses) / len(self.train)

    def _loss(self, batch: Activations, targets: Targets) -> torch.Tensor:
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits = self.head(torch.from_numpy(batch).to(self.device))
        return functional.cross_entropy(
            logits.float(), torch.from_numpy(targets).to(self.device), self.balance
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        self.step += 1
        for mean, value in zip(self.average.parameters(), self.head.parameters(), strict=True):
            mean.lerp_(value, self._share())

    def _share(self) -> float:
        """Compute how much of the average the weights of this step make up."""
        settings = self.settings
        if settings.mean_from_epoch is None:
            # Where steps are few, the average must be able to leave its start behind.
            return max(1 - settings.averaging, 1 / (self.steps * settings.epochs))
        return 1 / max(1, self.step - self.steps * (settings.mean_from_epoch - 1))

    def state(self) -> dict[str, Any]:
        """Return all that decides the next step, as `restore` takes it: tensors, numbers and texts."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {
            "head": self.head.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "order": self.random.bit_generator.state,
            "dropout": torch.get_rng_state(),
            "dropout_cuda": cuda,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.head.load_state_dict(state["head"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
        self.random.bit_generator.state = state["order"]
        torch.set_rng_state(state["dropout"])
        if state["dropout_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["dropout_cuda"], self.device)


def batch_size(images: int, settings: FineTune) -> int:
    """Choose how many images a step has: `settings.batch_size`, or fewer where the data set is small."""
    return min(settings.batch_size, max(_SMALLEST, images // _STEPS))


def choose_device(device: str) -> torch.device:
    """Choose where the fine-tune computes.

    Raises:
        ConfigurationError: It is to be a GPU, and torch sees none.
    """
    seen = torch.cuda.is_available()
    if device == "cuda" and not seen:
        raise ConfigurationError("torch sees no GPU here: say finetune.device=auto, or install a CUDA build")
    return torch.device("cuda" if seen and device != "cpu" else "cpu")


def start_head(network: Network, start: ProbeFit, settings: FineTune) -> Head:
    """Make a head that computes what the probe computes, with every BatchNorm frozen."""
    head = Head(network, settings.first_block, settings.dropout)
    with torch.no_grad():
        head.classifier.weight.copy_(start.weight)
        head.classifier.bias.copy_(start.bias)
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)  # noqa: FBT003 - torch's signature is positional
    return head.eval()
