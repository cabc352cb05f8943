"""What images are trained towards: a class each or a probability per class, and how much a class weighs."""

import numpy as np
import numpy.typing as npt
import torch

from imagebatch_training.images.labels import Labels, Split, class_probabilities

Integers = npt.NDArray[np.int64]
Targets = Integers | npt.NDArray[np.float32]
"""Class index (images,), or float32 probabilities (images, classes)."""


def training_targets(labels: Labels, split: Split, uncertain: str) -> tuple[Targets, Integers]:
    """Choose what is trained on in one split.

    Args:
        labels: The data set.
        split: Which split.
        uncertain: `leave-out`: labelled images alone; `soft`: also the uncertain ones of the training blocks,
            towards what their labellers said. The random split gives uncertain images no part, so that there
            the two are the same.

    Returns:
        Targets of all images, and the positions of the training images in file order.
    """
    train = labels.members(split, "train")
    if uncertain == "leave-out":
        return labels.targets(), train
    return class_probabilities(labels), np.union1d(train, labels.uncertain(split, "train"))


def class_index(targets: Targets) -> Integers:
    """Return the class of every image: of probabilities the most probable one."""
    return targets.argmax(1) if targets.ndim > 1 else targets.astype(np.int64)


def class_weights(targets: Targets, classes: int, kind: str) -> torch.Tensor | None:
    """Compute what the loss multiplies every class with.

    Args:
        targets: Of the training images.
        classes: Number of classes.
        kind: `none`, or `balanced`: images / (classes x images of the class), as scikit-learn has it.

    Returns:
        float32 (classes,), with a mean of 1 over the images; 0 for a class without any. None for `none`.
    """
    if kind == "none":
        return None
    counts = np.bincount(targets, minlength=classes) if targets.ndim == 1 else targets.sum(0)
    weights = len(targets) / (classes * np.maximum(counts, np.finfo(np.float32).tiny))
    return torch.from_numpy(np.where(counts > 0, weights, 0).astype(np.float32))
