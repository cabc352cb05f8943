"""A linear probe and a fine-tune on each split, from cached activations."""

import copy
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from imagebatch_training import metrics
from imagebatch_training.activations import Activations, load_activations
from imagebatch_training.assessment import Assessment, assess
from imagebatch_training.backbone import Convention, MobileNetV2, load_backbone
from imagebatch_training.data import DataSet
from imagebatch_training.finetune import fine_tune, start_head
from imagebatch_training.head import Head
from imagebatch_training.labels import SPLITS, Split
from imagebatch_training.pixels import load_pixels, pixels_key
from imagebatch_training.probe import fit_probe
from imagebatch_training.settings import Settings
from imagebatch_training.weights import WeightsFile

log = logging.getLogger(__name__)

PROBE, FINE_TUNE = "linear-probe", "fine-tune"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one method made of one split; `temperature` divides its logits."""

    assessment: Assessment
    head: Head
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Both methods on both splits, and the network they start from."""

    network: MobileNetV2
    convention: Convention
    trained: list[Trained]

    def served(self) -> Trained:
        """Choose what is served: the method with the higher test accuracy on the block split.

        The only choice that looks at test images, one of two methods; the report says so. Ties: validation.
        """
        candidates = [one.assessment for one in self.trained if one.assessment.split == "block"]
        best = max(candidates, key=lambda one: (one.test["accuracy"], one.validation["accuracy"]))
        return next(one for one in self.trained if one.assessment is best)

    def served_network(self) -> MobileNetV2:
        """Build the served network, its temperature folded in."""
        network, chosen = copy.deepcopy(self.network), self.served()
        chosen.head.install(network, chosen.temperature)
        return network


def run_experiment(settings: Settings, data: DataSet, weights: WeightsFile) -> Experiment:
    """Train and assess.

    Args:
        settings: Deterministic given these, on one kind of CPU.
        data: Images, labels and splits.
        weights: ImageNet weights.

    Returns:
        Four trained heads with their figures.
    """
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(mode=True)
    network, convention = load_backbone(weights.path, len(data.labels.classes))
    first = settings.finetune.first_block
    cache = Path(settings.paths.training) / "cache"
    key = pixels_key(data, settings.model)
    pixels = load_pixels(data, settings.model, key, cache)
    activations, features = load_activations(
        pixels, network, convention, first=first, key=f"{key} {weights.sha256}", cache=cache
    )
    trained = []
    for split in SPLITS:
        trained += _run_split(
            settings,
            data,
            split,
            network=network,
            activations=activations,
            features=torch.from_numpy(features),
        )
    return Experiment(network=network, convention=convention, trained=trained)


def _run_split(
    settings: Settings,
    data: DataSet,
    split: Split,
    *,
    network: MobileNetV2,
    activations: Activations,
    features: torch.Tensor,
) -> list[Trained]:
    labels = data.labels
    targets = labels.targets()
    train, validation = labels.members(split, "train"), labels.members(split, "validation")
    log.info("%s split: linear probe on %d images", split, len(train))
    probe = fit_probe(features, targets, train, validation, classes=len(labels.classes), probe=settings.probe)
    head = start_head(network, probe, settings.finetune)
    linear = _finish(
        data,
        split,
        method=PROBE,
        head=head,
        activations=activations,
        chosen={"penalty": probe.penalty},
        history=[],
    )
    log.info("%s split: fine-tune from block %d", split, settings.finetune.first_block)
    tuned = fine_tune(
        network,
        activations,
        targets,
        train,
        validation,
        start=probe,
        settings=settings.finetune,
        seed=settings.seed,
    )
    chosen = {"learning_rate": tuned.best.learning_rate, "epoch": float(tuned.best.epoch)}
    history = [asdict(epoch) for epoch in tuned.history]
    fine_tuned = _finish(
        data,
        split,
        method=FINE_TUNE,
        head=tuned.head,
        activations=activations,
        chosen=chosen,
        history=history,
    )
    return [linear, fine_tuned]


def _finish(
    data: DataSet,
    split: Split,
    *,
    method: str,
    head: Head,
    activations: Activations,
    chosen: dict[str, float],
    history: list[dict[str, float]],
) -> Trained:
    """Calibrate a head on validation and assess it."""
    logits = head.compute_logits(activations[0])
    validation = data.labels.members(split, "validation")
    temperature = metrics.fit_temperature(logits[validation], data.labels.targets()[validation])
    on_validation, on_test = assess((logits / temperature).astype(np.float32), data.labels, split)
    assessment = Assessment(
        split=split,
        method=method,
        validation=on_validation,
        test=on_test,
        chosen=chosen | {"temperature": temperature},
        history=history,
    )
    log.info("%s split, %s: test accuracy %.3f of %d", split, method, on_test["accuracy"], on_test["images"])
    return Trained(assessment=assessment, head=head, temperature=temperature)
