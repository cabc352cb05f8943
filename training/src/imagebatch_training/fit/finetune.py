"""The fine-tune: the last blocks and the classifier, from the linear probe on.

Starting from the probe keeps the first steps from spoiling the features (Kumar et al. 2022, "Fine-tuning can
distort pretrained features"); the averaged weights vary far less from epoch to epoch than the last ones.
"""

import copy
import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from imagebatch_training.backbone.mobilenet import Network
from imagebatch_training.fit.activations import Activations
from imagebatch_training.fit.head import Head
from imagebatch_training.fit.probe import ProbeFit
from imagebatch_training.fit.targets import Integers, Targets, class_index, class_weights
from imagebatch_training.settings import FineTune

log = logging.getLogger(__name__)

_WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of the history: learning rate tried, epoch from 1, mean losses (in training: with dropout)."""

    learning_rate: float
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float

    def rank(self) -> tuple[float, float]:
        """Order epochs: accuracy first, as calibration mends the loss afterwards; then the smaller loss."""
        return self.validation_accuracy, -self.validation_loss


@dataclass(frozen=True, kw_only=True)
class FineTuneFit:
    """The head of the epoch with the highest validation accuracy, then the smallest loss."""

    head: Head
    best: Epoch
    history: list[Epoch]


def fine_tune(
    network: Network,
    activations: Activations,
    targets: Targets,
    train: Integers,
    validation: Integers,
    *,
    start: ProbeFit,
    settings: FineTune,
    seed: int,
    name: str,
) -> FineTuneFit:
    """Fine-tune once per learning rate.

    Args:
        network: Its last blocks are where training starts; it is not changed.
        activations: float32 (views, images, channels, height, width).
        targets: int64 class index per image, or float32 probabilities (images, classes).
        train: Positions of the training images.
        validation: Positions of the validation images.
        start: Where the classifier starts.
        settings: Blocks, learning rates, epochs.
        seed: Of the order, the views and dropout.
        name: Said in front of the progress.

    Returns:
        The fit of the best epoch.
    """
    history: list[Epoch] = []
    best: tuple[Epoch, Head] | None = None
    for rate in settings.learning_rates:
        run = Run(network, activations, targets, train, start=start, settings=settings, rate=rate, seed=seed)
        for number in range(1, settings.epochs + 1):
            loss = run.epoch()
            measured = _measure(run.average, activations[0][validation], class_index(targets[validation]))
            epoch = Epoch(learning_rate=rate, epoch=number, train_loss=loss, **measured)
            log.info(
                "%s, rate %g, epoch %d: validation loss %.3f, accuracy %.3f",
                name,
                rate,
                number,
                epoch.validation_loss,
                epoch.validation_accuracy,
            )
            history.append(epoch)
            if best is None or epoch.rank() > best[0].rank():
                best = (epoch, copy.deepcopy(run.average))
    if best is None:
        raise ValueError("no learning rate and no epoch to choose from")
    return FineTuneFit(head=best[1], best=best[0], history=history)


class Run:
    """One learning rate's training, epoch by epoch, with the average of its weights."""

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
    ) -> None:
        torch.manual_seed(seed)
        self.random = np.random.default_rng(seed)
        self.activations, self.targets, self.train, self.settings = activations, targets, train, settings
        self.head = start_head(network, start, settings)
        self.average = copy.deepcopy(self.head)
        self.steps = -(-len(train) // settings.batch_size)
        self.step = 0
        self.balance = class_weights(
            targets[train], self.head.classifier.out_features, settings.class_weights
        )
        blocks = [value for value in self.head.blocks.parameters() if value.requires_grad]
        groups = [{"params": blocks}, {"params": [*self.head.classifier.parameters()]}]
        self.optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=settings.weight_decay)
        total = self.steps * settings.epochs + 1
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            max_lr=[rate, settings.head_learning_rate or rate],
            total_steps=total,
            pct_start=max(_WARM_UP, 2 / total),  # one step at least: the schedule divides by what it rises in
        )

    def epoch(self) -> float:
        """Train on every training image once, each in a random view; return the mean loss."""
        self.head.eval()  # BatchNorm keeps ImageNet's statistics; only dropout is switched on
        self.head.training = True
        losses = []
        for chosen in np.array_split(self.random.permutation(self.train), self.steps):
            views = self.random.integers(0, len(self.activations), size=len(chosen))
            batch = np.stack([self.activations[v, i] for v, i in zip(views, chosen, strict=True)])
            with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                logits = self.head(torch.from_numpy(batch))
            loss = functional.cross_entropy(
                logits.float(), torch.from_numpy(self.targets[chosen]), self.balance
            )
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.optimiser.step()
            self.schedule.step()
            self._update_average()
            losses.append(loss.item() * len(chosen))
        return sum(losses) / len(self.train)

    @torch.no_grad()
    def _update_average(self) -> None:
        self.step += 1
        for mean, value in zip(self.average.parameters(), self.head.parameters(), strict=True):
            mean.lerp_(value, self._share())

    def _share(self) -> float:
        """Compute how much of the average the weights of this step make up."""
        if self.settings.mean_from_epoch is None:
            return 1 - self.settings.averaging
        return 1 / max(1, self.step - self.steps * (self.settings.mean_from_epoch - 1))


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


def _measure(head: Head, activations: Activations, targets: Integers) -> dict[str, float]:
    logits = head.compute_logits(activations)
    loss = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
    accuracy = float((logits.argmax(1) == targets).mean())
    return {"validation_loss": float(loss), "validation_accuracy": accuracy}
