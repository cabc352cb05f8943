"""A linear probe and a fine-tune on each split, from cached activations.

The splits run side by side, each in a process of one thread: threads that wait for each other lose most of
their time when the cores are shared with other work, and one thread always adds in the same order.
"""

import copy
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from imagebatch_training import metrics
from imagebatch_training.backbone.mobilenet import Convention, ServedModel, build
from imagebatch_training.backbone.weights import WeightsFile
from imagebatch_training.cut import Cut
from imagebatch_training.fit.assessment import Answers, Assessment, answers_on_test, assess
from imagebatch_training.fit.finetune import fine_tune
from imagebatch_training.fit.frozen import Frozen, load_frozen, start_worker
from imagebatch_training.fit.head import Head
from imagebatch_training.fit.probe import fit_probe
from imagebatch_training.fit.targets import Integers, training_targets
from imagebatch_training.fit.trial import start_head
from imagebatch_training.images.data import DataSet
from imagebatch_training.images.labels import SPLITS, Split
from imagebatch_training.images.pixels import pixels_key
from imagebatch_training.settings import Settings, cache_path

log = logging.getLogger(__name__)

PROBE, FINE_TUNE = "linear-probe", "fine-tune"
_NO_DIFFERENCE = 1e-3
"""Nats of log loss."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one method made of one split; `state` is the whole network's state_dict, calibrated."""

    assessment: Assessment
    answers: Answers
    state: dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Both methods on both splits, and how their weights want to be used."""

    convention: Convention
    trained: list[Trained]

    def served(self) -> Trained:
        """Choose what is served: of the block split, the method with the smaller loss on validation images.

        The loss is the calibrated one: it says more than accuracy, of which a few hundred images make small
        steps. Where the losses are the same but for `_NO_DIFFERENCE`, as those of two models that are sure of
        nothing, accuracy decides. No test image is looked at. Ties: the linear probe, which comes first and
        is the simpler one.
        """
        candidates = [one for one in self.trained if one.assessment.split == "block"]
        least = min(one.assessment.validation["log_loss"] for one in candidates)
        near = [one for one in candidates if one.assessment.validation["log_loss"] <= least + _NO_DIFFERENCE]
        return max(near, key=lambda one: one.assessment.validation["accuracy"])

    def served_model(self, cut: Cut) -> ServedModel:
        """Build what is served, in evaluation mode; `cut` is where the network ends."""
        state = self.served_state()
        classes = len(state["classifier.1.bias"])
        network = build(self.convention.padding, classes, cut)
        network.load_state_dict(state)
        return ServedModel(network, self.convention).eval()

    def served_state(self) -> dict[str, torch.Tensor]:
        """Return the state_dict of what is served."""
        return {name: torch.from_numpy(value) for name, value in self.served().state.items()}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One split's training; `pixels` is the key of the decoded images."""

    settings: Settings
    data: DataSet
    weights: WeightsFile
    pixels: str
    split: Split
    checkpoint: Path


def run_experiment(
    settings: Settings, data: DataSet, weights: WeightsFile, checkpoints: dict[Split, Path]
) -> Experiment:
    """Train and assess.

    Args:
        settings: Deterministic given these, on one kind of CPU.
        data: Images, labels and splits.
        weights: ImageNet weights.
        checkpoints: Where the fine-tune of each split keeps how far it is, and goes on from.

    Returns:
        Four trained networks with their figures.
    """
    jobs = [
        _Job(
            settings=settings,
            data=data,
            weights=weights,
            pixels=pixels_key(data, settings.model),
            split=split,
            checkpoint=checkpoints[split],
        )
        for split in SPLITS
    ]
    frozen = _frozen(jobs[0])
    # Started afresh, not forked: a fork would inherit OpenVINO's threads in whatever state they are.
    with ProcessPoolExecutor(len(SPLITS), get_context("spawn"), initializer=start_worker) as pool:
        trained = [one for trained in pool.map(_run_split, jobs) for one in trained]
    return Experiment(convention=frozen.convention, trained=trained)


def _frozen(job: _Job) -> Frozen:
    cache = cache_path(job.settings)
    return load_frozen(job.settings, job.data, job.weights, pixels=job.pixels, cache=cache)


def _run_split(job: _Job) -> list[Trained]:
    settings, data, split = job.settings, job.data, job.split
    torch.manual_seed(settings.seed)
    frozen = _frozen(job)
    validation = data.labels.members(split, "validation")
    targets, train = training_targets(data.labels, split, settings.probe.uncertain)
    log.info("%s split: linear probe on %d images", split, len(train))
    probe = fit_probe(
        torch.from_numpy(frozen.features),
        targets,
        train,
        validation,
        classes=len(data.labels.classes),
        probe=settings.probe,
    )
    head = start_head(frozen.network, probe, settings.finetune)
    linear = _finish(
        data,
        split,
        train,
        method=PROBE,
        head=head,
        frozen=frozen,
        chosen={"penalty": probe.penalty},
        history=[],
    )
    targets, train = training_targets(data.labels, split, settings.finetune.uncertain)
    log.info("%s split: fine-tune from block %d", split, settings.finetune.first_block)
    tuned = fine_tune(
        frozen.network,
        frozen.activations,
        targets,
        train,
        validation,
        start=probe,
        settings=settings.finetune,
        seed=settings.seed,
        name=f"{split} split",
        checkpoint=job.checkpoint,
    )
    chosen = {"learning_rate": tuned.best.learning_rate, "epoch": float(tuned.best.epoch)}
    history = [asdict(epoch) for epoch in tuned.history]
    fine_tuned = _finish(
        data, split, train, method=FINE_TUNE, head=tuned.head, frozen=frozen, chosen=chosen, history=history
    )
    return [linear, fine_tuned]


def _finish(
    data: DataSet,
    split: Split,
    train: Integers,
    *,
    method: str,
    head: Head,
    frozen: Frozen,
    chosen: dict[str, float],
    history: list[dict[str, float]],
) -> Trained:
    """Calibrate a head on validation, assess it and put it back into the network."""
    logits = head.compute_logits(frozen.activations[0])
    validation = data.labels.members(split, "validation")
    temperature = metrics.fit_temperature(logits[validation], data.labels.targets()[validation])
    calibrated = (logits / temperature).astype(np.float32)
    on_validation, on_test = assess(calibrated, data.labels, split, train)
    assessment = Assessment(
        split=split,
        method=method,
        validation=on_validation,
        test=on_test,
        chosen=chosen | {"temperature": temperature},
        history=history,
    )
    log.info("%s split, %s: test accuracy %.3f of %d", split, method, on_test["accuracy"], on_test["images"])
    network = copy.deepcopy(frozen.network)
    head.install(network, temperature)
    # As arrays: tensors would travel between processes as handles that die with their maker.
    state = {name: value.contiguous().numpy() for name, value in network.state_dict().items()}
    return Trained(
        assessment=assessment, answers=answers_on_test(calibrated, data.labels, split), state=state
    )
