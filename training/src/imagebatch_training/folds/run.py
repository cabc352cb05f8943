"""Every recipe on every fold, each result kept: what was computed is not computed again."""

import logging
import shutil
import time
from collections.abc import Sequence
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
from imagebatch_training.settings import Probe

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
        path: Where it is kept, with the logits of all images.
    """

    fold: Fold
    logits: npt.NDArray[np.float32]
    validation_loss: float
    validation_accuracy: float
    temperature: float
    penalty: float
    cpu_seconds: float
    path: Path


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What every fold of a recipe has in common; `key` is that of its pixels."""

    recipe: Recipe
    data: DataSet
    weights: WeightsFile
    key: str
    cache: Path


def run_recipe(
    recipe: Recipe,
    folds: list[Fold],
    data: DataSet,
    weights: WeightsFile,
    *,
    cache: Path,
    processes: int,
    teachers: Sequence[Sequence[Outcome]] = (),
) -> list[Outcome]:
    """Fit a recipe on every fold, several side by side.

    Args:
        recipe: What is fitted.
        folds: Of all deals.
        data: Images and labels.
        weights: ImageNet's.
        cache: Folder of the outcomes and of the pixels and activations of one kind of input: those of the
            recipe before are removed where this one needs others.
        processes: Side by side, of one thread each.
        teachers: What the recipe's teachers made of the same folds.

    Returns:
        An outcome per fold, in order.
    """
    key = pixels_key(data, recipe.settings.model)
    ground = _Ground(recipe=recipe, data=data, weights=weights, key=key, cache=cache)
    above = [[teacher[place].path for teacher in teachers] for place in range(len(folds))]
    paths = [_path(ground, fold, by) for fold, by in zip(folds, above, strict=True)]
    missing = [place for place, path in enumerate(paths) if not path.is_file()]
    if missing:
        forget(cache, but=_folder(ground))
        _frozen(ground)
    done = len(folds) - len(missing)
    # Started afresh, not forked: a fork would inherit OpenVINO's threads in whatever state they are.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=start_worker) as pool:
        jobs = [pool.submit(_fit_fold, ground, folds[place], paths[place], above[place]) for place in missing]
        for job in as_completed(jobs):
            job.result()
            done += 1
            log.info("%s: %d of %d folds", recipe.name, done, len(folds))
    return [_read(path, fold) for path, fold in zip(paths, folds, strict=True)]


def forget(cache: Path, but: Path | None = None) -> None:
    """Remove pixels and activations, gigabytes for each kind of input; outcomes stay, and one folder."""
    for folder in cache.iterdir() if cache.is_dir() else ():
        if folder.is_dir() and folder.name != _OUTCOMES and folder != but:
            shutil.rmtree(folder)


def _path(ground: _Ground, fold: Fold, teachers: Sequence[Path]) -> Path:
    settings = ground.recipe.settings
    said = [asdict(settings.probe), settings.seed, settings.model.cut, ground.recipe.method]
    if ground.recipe.method == "fine-tune":
        # Where it is computed, and when a training would end early: neither changes what is done here.
        said.append({k: v for k, v in asdict(settings.finetune).items() if k not in {"device", "patience"}})
    if settings.augment:
        said.append(sorted(settings.augment))
    if ground.recipe.bags > 1 or teachers:
        said.append([ground.recipe.bags, [path.stem for path in teachers]])
    examples = [[e.image_id, e.label, e.block] for e in ground.data.labels.examples]
    parts = [part.tolist() for part in (fold.train, fold.validation, fold.test)]
    key = sha256_json([_VERSION, said, ground.key, ground.weights.sha256, examples, parts])
    return ground.cache / _OUTCOMES / f"{key[:24]}.npz"


def _folder(ground: _Ground) -> Path:
    settings = ground.recipe.settings
    name = [activations_key(settings, ground.weights, ground.key), settings.finetune.first_block]
    return ground.cache / sha256_json([*name, *sorted(settings.augment)])[:16]


def _frozen(ground: _Ground) -> Frozen:
    return load_frozen(
        ground.recipe.settings, ground.data, ground.weights, pixels=ground.key, cache=_folder(ground)
    )


def _fit_fold(ground: _Ground, fold: Fold, path: Path, teachers: Sequence[Path]) -> None:
    begun = time.process_time()
    kept = fit_fold(ground.recipe, fold, ground.data, _frozen(ground), teachers)
    kept["cpu_seconds"] = time.process_time() - begun
    with publish(path) as temporary:
        np.savez(temporary, **kept)  # type: ignore[arg-type]  # of its own keywords


def fit_fold(
    recipe: Recipe, fold: Fold, data: DataSet, frozen: Frozen, teachers: Sequence[Path] = ()
) -> dict[str, npt.ArrayLike]:
    """Fit a recipe on one fold, twice.

    Once without the validation images, to choose on them; then with them, as nothing is left to choose.

    Args:
        recipe: What is fitted.
        fold: What is fitted to, chosen on and tested.
        data: Images and labels.
        frozen: The network, activations and features that the fit starts from.
        teachers: Files that hold what the recipe's teachers made of this fold.

    Returns:
        `first` and `final`, float32 logits (images, classes) of all images by both fits, calibrated;
        `validation_loss` and `validation_accuracy` of the first; `temperature` and `penalty`.
    """
    known = data.labels.targets()
    validation = fold.validation[known[fold.validation] >= 0]
    # A teacher has seen what its pupil sees, and no more: its first fit teaches the first, its last the last.
    lesson = Lesson(fold.train, validation, taught(teachers, "first"))
    penalty, logits = _fitted(recipe, frozen, data, lesson, penalty=None)
    temperature = metrics.fit_temperature(logits[validation], known[validation])
    calibrated = logits[validation] / temperature
    everything = np.union1d(fold.train, fold.validation)
    lesson = Lesson(everything, validation, taught(teachers, "final"))
    _, final = _fitted(recipe, frozen, data, lesson, penalty=penalty)
    return {
        "first": (logits / temperature).astype(np.float32),
        "final": (final / temperature).astype(np.float32),
        "validation_loss": metrics.log_loss(calibrated, known[validation]),
        "validation_accuracy": float((calibrated.argmax(1) == known[validation]).mean()),
        "temperature": temperature,
        "penalty": penalty,
    }


@dataclass(frozen=True)
class Lesson:
    """What is fitted to.

    Attributes:
        images: Positions of the training images, uncertain ones among them.
        validation: Positions of the labelled images that a penalty is chosen on.
        taught: float32 (images, classes) of the teachers, for all images; None: of the labels alone.
    """

    images: Integers
    validation: Integers
    taught: npt.NDArray[np.float32] | None = None

    def targets(self, data: DataSet, uncertain: str) -> tuple[Targets, Integers]:
        """Return targets of all images, and the positions of those that are trained on."""
        known = data.labels.targets()
        chosen = self.images if uncertain == "soft" else self.images[known[self.images] >= 0]
        if self.taught is None:
            return class_probabilities(data.labels) if uncertain == "soft" else known, chosen
        targets = class_probabilities(data.labels).astype(np.float32)
        targets[chosen] = (targets[chosen] + self.taught[chosen]) / 2
        return targets, chosen

    def without(self, blocks: Integers, share: int, shares: int) -> "Lesson":
        """Leave the blocks of one share out, of so many shares dealt out at random."""
        order = np.random.default_rng(0).permutation(np.unique(blocks[self.images]))
        left_out = order[share::shares]
        return replace(self, images=self.images[~np.isin(blocks[self.images], left_out)])


def taught(teachers: Sequence[Path], fit: str) -> npt.NDArray[np.float32] | None:
    """Return the mean of the probabilities (images, classes) that teachers' outcomes keep of one fit.

    Args:
        teachers: Files that `run_recipe` keeps; none: there is nothing to teach.
        fit: `first`, without the validation images, or `final`, with them.
    """
    if not teachers:
        return None
    each = []
    for path in teachers:
        with np.load(path) as kept:
            each.append(metrics.softmax(kept[fit]))
    mean: npt.NDArray[np.float32] = np.mean(each, axis=0, dtype=np.float32)
    return mean


def _fitted(
    recipe: Recipe, frozen: Frozen, data: DataSet, lesson: Lesson, *, penalty: float | None
) -> tuple[float, npt.NDArray[np.float32]]:
    """Fit on some images; return the probe's penalty, and logits (images, classes) of all."""
    torch.manual_seed(recipe.settings.seed)
    start = _start(recipe.settings.probe, frozen, data, lesson, penalty)
    if recipe.bags == 1:
        return start.penalty, _logits(recipe, frozen, data, lesson, start)
    blocks = data.labels.blocks()
    total = np.zeros((len(blocks), len(data.labels.classes)), np.float32)
    for bag in range(recipe.bags):
        part = lesson.without(blocks, bag, recipe.bags)
        one = _start(recipe.settings.probe, frozen, data, part, start.penalty)
        total += _logits(recipe, frozen, data, part, one)
    return start.penalty, total / np.float32(recipe.bags)


def _start(probe: Probe, frozen: Frozen, data: DataSet, lesson: Lesson, penalty: float | None) -> ProbeFit:
    targets, chosen = lesson.targets(data, probe.uncertain)
    return fit_probe(
        torch.from_numpy(frozen.features),
        targets,
        chosen,
        lesson.validation,
        classes=len(data.labels.classes),
        probe=probe if penalty is None else replace(probe, penalties=[penalty]),
    )


def _logits(
    recipe: Recipe, frozen: Frozen, data: DataSet, lesson: Lesson, start: ProbeFit
) -> npt.NDArray[np.float32]:
    """Compute logits (images, classes) of all images, by the probe or by its fine-tune."""
    if recipe.method == "probe":
        logits = torch.nn.functional.linear(torch.from_numpy(frozen.features[0]), start.weight, start.bias)
        return logits.numpy()
    tune = recipe.settings.finetune
    targets, chosen = lesson.targets(data, tune.uncertain)
    trial = Trial(
        frozen.network,
        frozen.activations,
        targets,
        chosen,
        start=start,
        settings=tune,
        rate=tune.learning_rates[0],
        seed=recipe.settings.seed,
        name=recipe.name,
    )
    for _ in range(tune.epochs):
        trial.epoch()
    return trial.average.compute_logits(frozen.activations[0])


def _read(path: Path, fold: Fold) -> Outcome:
    with np.load(path) as kept:
        return Outcome(
            fold=fold,
            path=path,
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
