"""Calibration images: what the cheap precisions are fitted on, never the images that judge them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagebatch_training import metrics
from imagebatch_training.images.data import DataSet
from imagebatch_training.images.pixels import Pixels, load_pixels, pixels_key
from imagebatch_training.settings import Settings, cache_path

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Labelled images of the training and validation blocks.

    Attributes:
        pixels: uint8 (all images, 1 or 3, crop, crop).
        members: Positions of the calibration images, in file order.
        statistics: Positions of the training images whose activations set the ranges of 8 bits.
        folds: Fold of each member, 0..4; images of one block are in one fold.
    """

    pixels: Pixels
    members: metrics.Integers
    statistics: metrics.Integers
    folds: metrics.Integers

    def images(self, positions: metrics.Integers) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the input of a graph, uint8 (1, 3, crop, crop), of the images at these positions."""
        side = self.pixels.shape[-1]
        for position in positions:
            yield np.ascontiguousarray(np.broadcast_to(self.pixels[position], (3, side, side)))[None]


def load_calibration(settings: Settings, data: DataSet) -> Calibration:
    """Choose the calibration images and decode them.

    Args:
        settings: Number of images, their size, seed.
        data: With the block split.

    Raises:
        DataError: An image cannot be read.
    """
    labels, cache = data.labels, cache_path(settings)
    training = labels.members("block", "train")
    members = np.sort(np.concatenate([training, labels.members("block", "validation")]))
    chosen = np.random.default_rng(settings.seed).permutation(training)[: settings.release.images]
    blocks = np.unique(labels.blocks()[members], return_inverse=True)[1]
    return Calibration(
        pixels=load_pixels(data, settings.model, pixels_key(data, settings.model), cache),
        members=members,
        statistics=np.sort(chosen),
        folds=(blocks % FOLDS).astype(np.int64),
    )
