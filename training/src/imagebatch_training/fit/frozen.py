"""What every training starts from: the frozen network, its cached activations, processes of one thread."""

import logging
import os
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

import torch

from imagebatch_training.backbone.mobilenet import Convention, Network, load_backbone
from imagebatch_training.backbone.weights import WeightsFile
from imagebatch_training.cut import WHOLE
from imagebatch_training.fit.activations import Activations, Features, load_activations
from imagebatch_training.images.data import DataSet
from imagebatch_training.images.pixels import load_pixels
from imagebatch_training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The network as it comes, what the weights want, and what `load_activations` gives."""

    network: Network
    convention: Convention
    activations: Activations
    features: Features


def activations_key(settings: Settings, weights: WeightsFile, pixels: str) -> str:
    """Return what changes whenever activations do, but for the first block that is trained."""
    cut = settings.model.cut
    return " ".join([pixels, weights.sha256, *([] if cut == WHOLE else [str(cut)])])


def load_frozen(
    settings: Settings, data: DataSet, weights: WeightsFile, *, pixels: str, cache: Path
) -> Frozen:
    """Load the network and its activations; compute these where the cache lacks them.

    Args:
        settings: Where the network ends, and which block is the first that is trained.
        data: Images and labels.
        weights: ImageNet's.
        pixels: From `pixels_key`.
        cache: Folder of pixels and activations; other settings' are removed from it.

    Raises:
        DataError: An image cannot be decoded.
    """
    network, convention = load_backbone(weights.path, len(data.labels.classes), settings.model.cut)
    activations, features = load_activations(
        load_pixels(data, settings.model, pixels, cache),
        network,
        convention,
        first=settings.finetune.first_block,
        augment=settings.augment,
        key=activations_key(settings, weights, pixels),
        cache=cache,
    )
    return Frozen(network=network, convention=convention, activations=activations, features=features)


def start_worker() -> None:
    """Prepare a process that trains: one thread, sums in one order, and no life after its parent's."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else a GPU's sums are in no fixed order
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)


def _end_with_parent() -> None:
    """End when the parent was killed: left behind, a worker would train on beside the next training's."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
