"""The figures of recipes on folds, with intervals by drawing blocks.

A block's images are not independent, and deals test the same images again: what is drawn with replacement are
the blocks, each with what all deals made of it. Two recipes are compared on the same draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imagebatch_training import metrics
from imagebatch_training.folds.run import Outcome
from imagebatch_training.images.labels import Labels
from imagebatch_training.metrics import Integers, Interval

Floats = npt.NDArray[np.float64]
_DRAWS = 4000
_ENDS = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a recipe says of every image, each by a model that never saw its block.

    Attributes:
        probabilities: float32 (deals, images, classes).
        targets: int64 (images,), -1 for uncertain images.
        blocks: int64 (images,).
        positive: Indices of the classes that are looked for.
    """

    probabilities: npt.NDArray[np.float32]
    targets: Integers
    blocks: Integers
    positive: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Means over the deals, each on all labelled images, 0 to 1.

    Attributes:
        accuracy: Share of images whose class is named.
        macro_f1: Mean of the classes' F1.
        recall: Share of positive images that are called so, of whichever positive class.
        precision: Share of what is called positive that is.
        auroc: Of the summed probability of the positive classes.
        average_precision: Of the same.
        calibration_error: Of the top-1 probability, ten bins.
        log_loss: Nats.
    """

    accuracy: float
    macro_f1: float
    recall: float
    precision: float
    auroc: float
    average_precision: float
    calibration_error: float
    log_loss: float


def gather(outcomes: Sequence[Outcome], labels: Labels, positive: Sequence[str]) -> Answers:
    """Put the folds of each deal together."""
    deals = 1 + max(outcome.fold.deal for outcome in outcomes)
    probabilities = np.full((deals, len(labels.examples), len(labels.classes)), np.nan, np.float32)
    for outcome in outcomes:
        probabilities[outcome.fold.deal, outcome.fold.test] = metrics.softmax(outcome.logits)
    return Answers(
        probabilities=probabilities,
        targets=labels.targets(),
        blocks=labels.blocks(),
        positive=[index for index, name in enumerate(labels.classes) if name in positive],
    )


def mix(several: Sequence[Answers]) -> Answers:
    """Return the mean of several recipes' probabilities, as an ensemble of their models gives it."""
    first = several[0]
    return Answers(
        probabilities=np.mean([one.probabilities for one in several], axis=0, dtype=np.float32),
        targets=first.targets,
        blocks=first.blocks,
        positive=first.positive,
    )


def measure(answers: Answers) -> Figures:
    """Compute the figures of one recipe."""
    known = answers.targets >= 0
    targets = answers.targets[known]
    rows = []
    for deal in answers.probabilities[:, known].astype(np.float64):
        counts = metrics.confusion(deal.argmax(1), targets, deal.shape[1])
        correct = deal.argmax(1) == targets
        scores, found = deal[:, list(answers.positive)].sum(1), np.isin(targets, answers.positive)
        rows.append(
            [
                *_rates(counts[None], answers.positive)[:, 0],
                metrics.auroc(scores[found], scores[~found]),
                average_precision(scores, found),
                metrics.calibration_error(deal.max(1), correct),
                metrics.log_loss(np.log(deal), targets),
            ]
        )
    return Figures(**dict(zip(Figures.__dataclass_fields__, np.mean(rows, axis=0).tolist(), strict=True)))


def intervals(answers: Answers, other: Answers | None = None) -> dict[str, Interval]:
    """Compute 95 % percentile intervals of accuracy, macro_f1, recall and precision.

    Args:
        answers: Of a recipe.
        other: Of another one: then the intervals are of the first's gain over it.
    """
    rates = _drawn(answers)
    if other is not None:
        rates = rates - _drawn(other)
    names = ("accuracy", "macro_f1", "recall", "precision")
    ends = np.percentile(rates, _ENDS, axis=1).T.tolist()
    return {name: (low, high) for name, (low, high) in zip(names, ends, strict=True)}


def uncertain_gap(answers: Answers) -> tuple[float, float, Interval] | None:
    """Compare the top-1 probability of labelled and of uncertain images.

    Returns:
        The means of both, and the interval of their difference by drawing blocks; None where none is
        uncertain.
    """
    confidence = answers.probabilities.max(2).mean(0).astype(np.float64)
    known = answers.targets >= 0
    if known.all():
        return None
    _, place = np.unique(answers.blocks, return_inverse=True)
    draws = _draws(place.max() + 1)
    means = []
    for chosen in (known, ~known):
        sums, sizes = (
            np.bincount(place[chosen], weights, draws.shape[1]) for weights in (confidence[chosen], None)
        )
        means.append(sums[draws].sum(1) / np.maximum(sizes[draws].sum(1), 1))
    low, high = np.percentile(means[0] - means[1], _ENDS)
    return float(confidence[known].mean()), float(confidence[~known].mean()), (float(low), float(high))


def certainty(answers: Answers) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the top-1 probability of every labelled image and deal, and whether its class was right."""
    known = answers.targets >= 0
    probabilities = answers.probabilities[:, known].reshape(-1, answers.probabilities.shape[2])
    targets = np.tile(answers.targets[known], len(answers.probabilities))
    return probabilities.max(1).astype(np.float64), probabilities.argmax(1) == targets


def best_threshold(answers: Answers, precision: float) -> tuple[float, float, float]:
    """Find how many positive images can be found at a precision.

    What is called positive is what has at least some summed probability of the positive classes.

    Args:
        answers: Of a recipe.
        precision: At least this.

    Returns:
        Threshold, recall and precision, on all deals together; of a figure to read, not one that was chosen
        on other images.
    """
    known = answers.targets >= 0
    scores = answers.probabilities[:, known][:, :, list(answers.positive)].sum(2).ravel().astype(np.float64)
    found = np.tile(np.isin(answers.targets[known], answers.positive), len(answers.probabilities))
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(found[order])
    precisions = hits / np.arange(1, len(order) + 1)
    last = int(np.flatnonzero(precisions >= precision)[-1]) if (precisions >= precision).any() else 0
    return float(scores[order[last]]), float(hits[last] / found.sum()), float(precisions[last])


def by_cost(answers: Answers, *, missed: float, false_alarm: float) -> dict[str, Any]:
    """Compute what a threshold that follows from costs is worth, beside naming the most probable class.

    Positive is what has at least `false_alarm / (false_alarm + missed)` summed probability of the positive
    classes: where the probabilities are calibrated, calling such an image positive costs less on average. The
    threshold is not chosen on any image.

    Args:
        answers: Of a recipe.
        missed: Cost of a positive image that is not called so, in any unit.
        false_alarm: Cost of an image that is called so and is not.

    Returns:
        JSON: `threshold`; `recall`, `precision` and `cost` (per 100 images) with it; `cost_of_names`, where
        the most probable class is named; `saved`, the difference, with its 95 % `interval` by drawing blocks.
    """
    threshold = false_alarm / (false_alarm + missed)
    known = answers.targets >= 0
    _, place = np.unique(answers.blocks, return_inverse=True)
    draws = _draws(place.max() + 1)
    positive = list(answers.positive)
    found = np.isin(answers.targets[known], positive)
    deals = answers.probabilities[:, known]
    called = {
        "threshold": deals[:, :, positive].sum(2) >= threshold,
        "names": np.isin(deals.argmax(2), positive),
    }
    costs, drawn = {}, {}
    for way, said in called.items():
        cost = missed * (found & ~said).mean(0) + false_alarm * (~found & said).mean(0)
        sums = np.bincount(place[known], cost, draws.shape[1])
        sizes = np.bincount(place[known], minlength=draws.shape[1])
        costs[way] = 100 * float(cost.mean())
        drawn[way] = 100 * sums[draws].sum(1) / np.maximum(sizes[draws].sum(1), 1)
    hits = (called["threshold"] & found).sum()
    low, high = np.percentile(drawn["names"] - drawn["threshold"], _ENDS)
    return {
        "missed": missed,
        "false_alarm": false_alarm,
        "threshold": threshold,
        "recall": float(hits / max(1, found.sum() * len(deals))),
        "precision": float(hits / max(1, called["threshold"].sum())),
        "cost": costs["threshold"],
        "cost_of_names": costs["names"],
        "saved": costs["names"] - costs["threshold"],
        "interval": (float(low), float(high)),
    }


def average_precision(scores: Floats, found: npt.NDArray[np.bool_]) -> float:
    """Compute the mean, over the positive images, of the precision at its score; ties count together."""
    levels, place = np.unique(-scores, return_inverse=True)
    hits = np.bincount(place, found, len(levels))
    precisions = np.cumsum(hits) / np.cumsum(np.bincount(place, minlength=len(levels)))
    return float((precisions * hits).sum() / max(1, found.sum()))


def by_validation(outcomes: Mapping[str, Sequence[Outcome]]) -> tuple[list[Outcome], dict[str, int]]:
    """Choose, for every fold anew, the recipe with the smallest loss on its validation images.

    Returns:
        The chosen outcomes, and how often each recipe was chosen.
    """
    chosen, counts = [], dict.fromkeys(outcomes, 0)
    for rivals in zip(*outcomes.values(), strict=True):
        best = min(zip(outcomes, rivals, strict=True), key=lambda pair: pair[1].validation_loss)
        counts[best[0]] += 1
        chosen.append(best[1])
    return chosen, counts


def _rates(counts: npt.NDArray[np.generic], positive: Sequence[int]) -> Floats:
    """Compute accuracy, macro-F1, recall and precision (4, n) of confusion matrices (n, true, predicted)."""
    numbers = counts.astype(np.float64)
    diagonal = np.einsum("nii->ni", numbers)
    f1 = 2 * diagonal / np.maximum(numbers.sum(1) + numbers.sum(2), 1)
    chosen = list(positive)
    hits = numbers[:, chosen][:, :, chosen].sum((1, 2))
    return np.stack(
        [
            diagonal.sum(1) / numbers.sum((1, 2)),
            f1.mean(1),
            hits / np.maximum(numbers[:, chosen].sum((1, 2)), 1),
            hits / np.maximum(numbers[:, :, chosen].sum((1, 2)), 1),
        ]
    )


def _drawn(answers: Answers) -> Floats:
    """Compute the rates (4, draws), means over the deals, of blocks drawn with replacement."""
    _, place = np.unique(answers.blocks, return_inverse=True)
    known = answers.targets >= 0
    draws = _draws(place.max() + 1)
    classes = answers.probabilities.shape[2]
    rates = []
    for deal in answers.probabilities:
        counts = np.zeros((place.max() + 1, classes, classes), np.int64)
        np.add.at(counts, (place[known], answers.targets[known], deal[known].argmax(1)), 1)
        rates.append(_rates(counts[draws].sum(1), answers.positive))
    return np.asarray(np.mean(rates, axis=0))


def _draws(blocks: int) -> Integers:
    return np.random.default_rng(0).integers(0, blocks, size=(_DRAWS, blocks))
