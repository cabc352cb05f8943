"""Activations whose answer is known, and a quick fine-tune on them; also as a process to kill."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from imagebatch_training.backbone.mobilenet import MobileNetV2, build
from imagebatch_training.fit.finetune import FineTuneFit, fine_tune
from imagebatch_training.fit.probe import ProbeFit
from imagebatch_training.settings import FineTune

CLASSES = 3
FIRST = 18
TARGETS = np.arange(42) % CLASSES
TRAIN, VALIDATION = np.arange(24), np.arange(24, 42)
SETTINGS = FineTune(
    first_block=FIRST, learning_rates=[1e-3, 3e-3], epochs=2, batch_size=8, averaging=0.5, dropout=0.2
)
NOTHING = ProbeFit(
    weight=torch.zeros(CLASSES, 1280), bias=torch.zeros(CLASSES), penalty=1.0, validation_loss={}
)
LONG = replace(SETTINGS, epochs=12, mean_from_epoch=5)
"""Long enough for a process to be killed in the middle."""


def make_network() -> MobileNetV2:
    torch.manual_seed(0)
    return build("torch", CLASSES)


def make_activations(targets: npt.NDArray[np.int64] = TARGETS) -> npt.NDArray[np.float32]:
    """(views, images, channels, 1, 1): a pattern of its own for every class, and noise."""
    random = np.random.default_rng(0)
    patterns = random.normal(size=(CLASSES, 320, 1, 1))
    noise = random.normal(size=(4, len(targets), 320, 1, 1))
    return (patterns[targets] + 0.5 * noise).astype(np.float32)


def tune_long(checkpoint: Path | None = None, settings: FineTune = LONG) -> FineTuneFit:
    """Fine-tune as the process does that is killed."""
    return fine_tune(
        make_network(),
        make_activations(),
        TARGETS,
        TRAIN,
        VALIDATION,
        start=NOTHING,
        settings=settings,
        seed=0,
        name="patterns",
        checkpoint=checkpoint,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    tune_long(Path(sys.argv[1]))
