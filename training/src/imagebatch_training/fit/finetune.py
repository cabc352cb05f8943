"""The fine-tune: the last blocks and the classifier, from the linear probe on.

Starting from the probe keeps the first steps from spoiling the features (Kumar et al. 2022, "Fine-tuning can
distort pretrained features"); the averaged weights vary far less from epoch to epoch than the last ones.
"""

import copy
import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn import functional

from imagebatch_training.backbone.mobilenet import Network
from imagebatch_training.fit.activations import Activations
from imagebatch_training.fit.checkpoint import State, read_checkpoint, write_checkpoint
from imagebatch_training.fit.head import Head
from imagebatch_training.fit.probe import ProbeFit
from imagebatch_training.fit.targets import Integers, Targets, class_index
from imagebatch_training.fit.trial import Trial, start_head
from imagebatch_training.progress import duration
from imagebatch_training.settings import FineTune

log = logging.getLogger(__name__)


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


@dataclass(kw_only=True)
class _Standing:
    """How far a fine-tune is.

    Attributes:
        trials: The epochs so far of every learning rate so far; of the last one perhaps not all.
        best: The best epoch, and its averaged weights.
        trial: State of the last learning rate's trial.
    """

    trials: list[list[Epoch]] = field(default_factory=list)
    best: tuple[Epoch, State] | None = None
    trial: State | None = None

    @classmethod
    def read(cls, path: Path | None) -> "_Standing":
        """Read where a killed training stood; a new one stands at the start."""
        state = read_checkpoint(path) if path else None
        if state is None:
            return cls()
        trials = [[Epoch(**row) for row in rows] for rows in state["trials"]]
        return cls(trials=trials, best=(Epoch(**state["best"]), state["best_head"]), trial=state["trial"])

    def write(self, path: Path | None) -> None:
        if path and self.best:
            trials = [[asdict(row) for row in rows] for rows in self.trials]
            best, head = self.best
            state = {"trials": trials, "best": asdict(best), "best_head": head, "trial": self.trial}
            write_checkpoint(path, state)

    def add(self, epoch: Epoch, trial: Trial) -> None:
        self.trials[-1].append(epoch)
        self.trial = trial.state()
        if self.best is None or epoch.rank() > self.best[0].rank():
            self.best = epoch, copy.deepcopy(trial.average.state_dict())


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
    checkpoint: Path | None = None,
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
        checkpoint: File that is written after every epoch. Where it is there already, training goes on from
            it and ends with the same weights: its name must change with every other argument.

    Returns:
        The fit of the best epoch.
    """
    standing = _Standing.read(checkpoint)
    begun = len(standing.trials)
    if begun:
        rows = standing.trials[-1]
        log.info("%s: goes on after epoch %d of rate %g", name, rows[-1].epoch, rows[-1].learning_rate)
    for number, rate in enumerate(settings.learning_rates[max(0, begun - 1) :], start=max(1, begun)):
        trial = Trial(
            network,
            activations,
            targets,
            train,
            start=start,
            settings=settings,
            rate=rate,
            seed=seed,
            name=name,
        )
        if number == begun and standing.trial:
            trial.restore(standing.trial)
        else:
            standing.trials.append([])
        while not _ended(standing.trials[-1], trial):
            standing.add(_epoch(trial, len(standing.trials[-1]) + 1, validation), trial)
            standing.write(checkpoint)
    if standing.best is None:
        raise ValueError("no learning rate and no epoch to choose from")
    head = start_head(network, start, settings)
    head.load_state_dict(standing.best[1])
    history = [row for rows in standing.trials for row in rows]
    return FineTuneFit(head=head, best=standing.best[0], history=history)


def _epoch(trial: Trial, number: int, validation: Integers) -> Epoch:
    begun = time.monotonic()
    loss = trial.epoch()
    targets = class_index(trial.targets[validation])
    measured = _measure(trial.average, trial.activations[0][validation], targets)
    epoch = Epoch(learning_rate=trial.rate, epoch=number, train_loss=loss, **measured)
    epochs = trial.settings.epochs
    left = duration((time.monotonic() - begun) * (epochs - number))
    figures = epoch.validation_loss, epoch.validation_accuracy
    log.info(
        "%s, epoch %d of %d: validation loss %.3f, accuracy %.3f, at most %s left of this rate",
        trial.name,
        number,
        epochs,
        *figures,
        left,
    )
    return epoch


def _ended(rows: list[Epoch], trial: Trial) -> bool:
    """Tell whether a learning rate's trial has had its epochs, or has not got better for long enough."""
    patience = trial.settings.patience
    if len(rows) >= trial.settings.epochs:
        return True
    if patience is None or not rows:
        return False
    best = max(rows, key=Epoch.rank)
    stopped = rows[-1].epoch - best.epoch >= patience
    if stopped:
        log.info("%s: stopped early, as no epoch was better than %d", trial.name, best.epoch)
    return stopped


def _measure(head: Head, activations: Activations, targets: Integers) -> dict[str, float]:
    logits = head.compute_logits(activations)
    loss = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
    accuracy = float((logits.argmax(1) == targets).mean())
    return {"validation_loss": float(loss), "validation_accuracy": accuracy}
