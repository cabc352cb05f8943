"""Every recipe on every fold, each result kept: what was computed is not computed again."""

import logging
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from imagebatch_training import metrics
from imagebatch_training.backbone.weights import WeightsFile
from imagebatch_training.files import publish, sha256_json
from imagebatch_training.fit.frozen import Frozen, activations_key, load_frozen, start_worker
from imagebatch_training.fit.probe import ProbeFit, fit_probe
from imagebatch_training.fit.targets import Integers, Targets
from imagebatch_training.fit.trial import Trial
from imagebatch_training.folds.deal import Fold
from imagebatch_training.folds.plan import Recipe
from imagebatch_training.images.data import DataSet
from imagebatch_training.images.labels import class_probabilities
from imagebatch_training.images.pixels import pixels_key

log = logging.getLogger(__name__)

_OUTCOMES = "outcomes"
_VERSION = 2
"""Changes with what is kept of a fold, or with how it comes about."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one recipe made of one fold.

    Attributes:
        fold: Which.
        logits: float32 (images of `fold.test`, classes), calibrated by the temperature.
        validation_loss: Mean log loss on the labelled validation images, calibrated.
        validation_accuracy: On the same.
        temperature: Chosen on the validation images.
        penalty: The probe's, chosen there as well.
        cpu_seconds: Of fitting, on one thread.
    """

    fold: Fold
    logits: npt.NDArray[np.float32]
    validation_loss: float
    validation_accuracy: float
    temperature: float
    penalty: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What every fold of a recipe has in common; `key` is that of its pixels."""

    recipe: Recipe
    data: DataSet
    weights: WeightsFile
    key: str
    cache: Path


def run_recipe(
    recipe: Recipe, folds: list[Fold], data: DataSet, weights: WeightsFile, *, cache: Path, processes: int
) -> list[Outcome]:
    """Fit a recipe on every fold, several side by side.

    Args:
        recipe: What is fitted.
        folds: Of all deals.
        data: Images and labels.
        weights: ImageNet's.
        cache: Folder of the outcomes and, until `forget` is called, of pixels and activations.
        processes: Side by side, of one thread each.

    Returns:
        An outcome per fold, in order.
    """
    key = pixels_key(data, recipe.settings.model)
    ground = _Ground(recipe=recipe, data=data, weights=weights, key=key, cache=cache)
    paths = [_path(ground, fold) for fold in folds]
    missing = [place for place, path in enumerate(paths) if not path.is_file()]
    if missing:
        _frozen(ground)
    done = len(folds) - len(missing)
    # Started afresh, not forked: a fork would inherit OpenVINO's threads in whatever state they are.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=start_worker) as pool:
        jobs = [pool.submit(_fit_fold, ground, folds[place], paths[place]) for place in missing]
        for job in as_completed(jobs):
            job.result()
            done += 1
            log.info("%s: %d of %d folds", recipe.name, done, len(folds))
    return [_read(path, fold) for path, fold in zip(paths, folds, strict=True)]


def forget(cache: Path) -> None:
    """Remove pixels and activations, a gigabyte for each kind of input; outcomes stay."""
    for folder in cache.iterdir():
        if folder.is_dir() and folder.name != _OUTCOMES:
            shutil.rmtree(folder)


def _path(ground: _Ground, fold: Fold) -> Path:
    settings = ground.recipe.settings
    said = [asdict(settings.probe), settings.seed, settings.model.cut, ground.recipe.method]
    if ground.recipe.method == "fine-tune":
        # Where it is computed, and when a training would end early: neither changes what is done here.
        said.append({k: v for k, v in asdict(settings.finetune).items() if k not in {"device", "patience"}})
    examples = [[e.image_id, e.label, e.block] for e in ground.data.labels.examples]
    parts = [part.tolist() for part in (fold.train, fold.validation, fold.test)]
    key = sha256_json([_VERSION, said, ground.key, ground.weights.sha256, examples, parts])
    return ground.cache / _OUTCOMES / f"{key[:24]}.npz"


def _frozen(ground: _Ground) -> Frozen:
    settings = ground.recipe.settings
    name = [activations_key(settings, ground.weights, ground.key), settings.finetune.first_block]
    folder = ground.cache / sha256_json(name)[:16]
    return load_frozen(settings, ground.data, ground.weights, pixels=ground.key, cache=folder)


def _fit_fold(ground: _Ground, fold: Fold, path: Path) -> None:
    begun = time.process_time()
    frozen = _frozen(ground)
    recipe, data = ground.recipe, ground.data
    known = data.labels.targets()
    validation = fold.validation[known[fold.validation] >= 0]
    everything = np.union1d(fold.train, fold.validation)
    # Once without the validation images, to choose on them; then with them, as nothing is left to choose.
    penalty, logits = _fitted(recipe, frozen, data, fold.train, validation, penalty=None)
    temperature = metrics.fit_temperature(logits[validation], known[validation])
    calibrated = logits[validation] / temperature
    _, final = _fitted(recipe, frozen, data, everything, validation, penalty=penalty)
    kept: Mapping[str, npt.ArrayLike] = {
        "first": (logits / temperature).astype(np.float32),
        "final": (final / temperature).astype(np.float32),
        "validation_loss": metrics.log_loss(calibrated, known[validation]),
        "validation_accuracy": float((calibrated.argmax(1) == known[validation]).mean()),
        "temperature": temperature,
        "penalty": penalty,
        "cpu_seconds": time.process_time() - begun,
    }
    with publish(path) as temporary:
        np.savez(temporary, **kept)  # type: ignore[arg-type]  # of its own keywords


def _fitted(
    recipe: Recipe,
    frozen: Frozen,
    data: DataSet,
    images: Integers,
    validation: Integers,
    *,
    penalty: float | None,
) -> tuple[float, npt.NDArray[np.float32]]:
    """Fit on some images; return the probe's penalty, and logits (images, classes) of all."""
    settings = recipe.settings
    torch.manual_seed(settings.seed)
    probe = settings.probe if penalty is None else replace(settings.probe, penalties=[penalty])
    targets, chosen = _targets(data, images, probe.uncertain)
    start: ProbeFit = fit_probe(
        torch.from_numpy(frozen.features),
        targets,
        chosen,
        validation,
        classes=len(data.labels.classes),
        probe=probe,
    )
    if recipe.method == "probe":
        logits = torch.nn.functional.linear(torch.from_numpy(frozen.features[0]), start.weight, start.bias)
        return start.penalty, logits.numpy()
    tune = settings.finetune
    targets, chosen = _targets(data, images, tune.uncertain)
    trial = Trial(
        frozen.network,
        frozen.activations,
        targets,
        chosen,
        start=start,
        settings=tune,
        rate=tune.learning_rates[0],
        seed=settings.seed,
        name=recipe.name,
    )
    for _ in range(tune.epochs):
        trial.epoch()
    return start.penalty, trial.average.compute_logits(frozen.activations[0])


def _targets(data: DataSet, images: Integers, uncertain: str) -> tuple[Targets, Integers]:
    known = data.labels.targets()
    if uncertain == "soft":
        return class_probabilities(data.labels), images
    return known, images[known[images] >= 0]


def _read(path: Path, fold: Fold) -> Outcome:
    with np.load(path) as kept:
        return Outcome(
            fold=fold,
            logits=kept["final"][fold.test],
            **{
                name: float(kept[name])
                for name in (
                    "validation_loss",
                    "validation_accuracy",
                    "temperature",
                    "penalty",
                    "cpu_seconds",
                )
            },
        )
