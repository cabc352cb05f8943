"""The figures that are reported, each with its interval or its formula."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Interval = tuple[float, float]

_Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""
_RESAMPLES = 10_000


def wilson(correct: int, total: int) -> Interval:
    """Compute the 95 % Wilson score interval of a share (Wilson 1927).

    Args:
        correct: Successes, 0..total.
        total: Independent trials, at least 1.

    Returns:
        Lower and upper end, 0..1.
    """
    share, square = correct / total, _Z * _Z
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = _Z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def block_bootstrap(correct: npt.NDArray[np.bool_] | Integers, blocks: Integers, seed: int = 0) -> Interval:
    """Compute a 95 % percentile interval of accuracy by drawing whole blocks with replacement.

    Images of one block are not independent, so that an interval that counts images is too narrow.

    Args:
        correct: Whether each image was right; or, of two models, the difference: -1, 0 or 1 (paired).
        blocks: Block of each image.
        seed: Of the 10,000 draws.

    Returns:
        Lower and upper end, 0..1; of a difference -1..1.
    """
    names = np.unique(blocks)
    right = np.array([correct[blocks == name].sum() for name in names])
    sizes = np.array([(blocks == name).sum() for name in names])
    draws = np.random.default_rng(seed).integers(0, len(names), size=(_RESAMPLES, len(names)))
    shares = right[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def softmax(logits: Floats) -> Floats:
    """Compute probabilities (images, classes) of logits of the same shape."""
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    result: Floats = exponents / exponents.sum(1, keepdims=True)
    return result


def log_loss(logits: Floats, targets: Integers) -> float:
    """Compute the mean negative log likelihood in nats of logits (images, classes)."""
    wide = logits.astype(np.float64)
    top = wide.max(1)
    norm = top + np.log(np.exp(wide - top[:, None]).sum(1))
    return float((norm - wide[np.arange(len(targets)), targets]).mean())


def fit_temperature(logits: Floats, targets: Integers) -> float:
    """Find the temperature that minimises the log loss of `logits / temperature` (Guo et al. 2017).

    Args:
        logits: (images, classes), of validation images.
        targets: Class index per image.

    Returns:
        A temperature in 0.1..10, by golden-section search over its logarithm: the loss has one minimum.
    """
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(0.1), math.log(10)
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if log_loss(logits / math.exp(left), targets) < log_loss(logits / math.exp(right), targets):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def confusion(predicted: Integers, targets: Integers, classes: int) -> Integers:
    """Count images (true class, predicted class)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    return counts


def per_class(counts: Integers, names: list[str]) -> dict[str, dict[str, float]]:
    """Compute precision, recall, F1 and the number of images of every class.

    A class that is never predicted has precision 0, a class without images recall 0.
    """
    result = {}
    for index, name in enumerate(names):
        hits, images, claims = (
            int(counts[index, index]),
            int(counts[index].sum()),
            int(counts[:, index].sum()),
        )
        precision, recall = hits / max(claims, 1), hits / max(images, 1)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        result[name] = {"images": images, "precision": precision, "recall": recall, "f1": f1}
    return result


def reliability(
    confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = 10
) -> list[tuple[int, float, float]]:
    """Compare confidence with accuracy in equal bins of the top-1 probability.

    Args:
        confidence: Top-1 probabilities, 0..1.
        correct: Whether each image was right.
        bins: Number of bins.

    Returns:
        Per bin that is not empty, lowest first: images, mean confidence, accuracy.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    members = [place == i for i in range(bins) if (place == i).any()]
    return [(int(m.sum()), float(confidence[m].mean()), float(correct[m].mean())) for m in members]


def at_least(confidence: Floats, correct: npt.NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    """Compute how many images are as sure as a threshold, and how many of those are right.

    Args:
        confidence: Top-1 probability of each image, shape (images,).
        correct: Whether each was right, shape (images,).
        threshold: Images whose probability is not below it count.

    Returns:
        `threshold`, `images`, `coverage` (share of all images), `accuracy` and its Wilson interval `wilson`;
        the last two are None where no image is that sure.
    """
    sure = confidence >= threshold
    images, right = int(sure.sum()), int(correct[sure].sum())
    return {
        "threshold": float(threshold),
        "images": images,
        "coverage": images / len(confidence),
        "accuracy": right / images if images else None,
        "wilson": wilson(right, images) if images else None,
    }


def coverage_curve(
    confidence: Floats, correct: npt.NDArray[np.bool_], points: int = 20
) -> list[dict[str, Any]]:
    """Compute accuracy against coverage: what is left to the model if the least sure images go to people.

    Args:
        confidence: Top-1 probability of each image, shape (images,); at least one.
        correct: Whether each was right, shape (images,).
        points: How many, at even steps of coverage.

    Returns:
        Entries of `at_least`, coverage rising to 1. Equally sure images stay together.
    """
    falling = np.sort(confidence)[::-1]
    places = [max(1, round(len(falling) * step / points)) for step in range(1, points + 1)]
    thresholds = sorted({float(falling[place - 1]) for place in places}, reverse=True)
    return [at_least(confidence, correct, threshold) for threshold in thresholds]


def threshold_for(
    confidence: Floats, correct: npt.NDArray[np.bool_], accuracy: float, images: int
) -> dict[str, Any] | None:
    """Find the least threshold at which the images that are as sure reach an accuracy.

    Args:
        confidence: Top-1 probability of each image, shape (images,), of images that nothing was fitted on
            but hyperparameters.
        correct: Whether each was right, shape (images,).
        accuracy: Wanted, 0 to 1.
        images: Fewest images that must be as sure: of fewer, the accuracy says little.

    Returns:
        The entry of `at_least`, for a threshold of three decimals; None if there is none.
    """
    for step in range(1, 1000):
        found = at_least(confidence, correct, step / 1000)
        if found["images"] < images:
            return None
        if found["accuracy"] >= accuracy:
            return found
    return None


def calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Compute the expected calibration error over equal bins of the top-1 probability, 0..1."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(correct[place == i].mean() - confidence[place == i].mean())) * float((place == i).mean())
        for i in range(bins)
        if (place == i).any()
    ]
    return sum(gaps)


def auroc(higher: Floats, lower: Floats) -> float:
    """Compute the share of pairs in which `higher` exceeds `lower`, ties counting half (Mann-Whitney)."""
    ordered = np.sort(lower)
    below = np.searchsorted(ordered, higher, side="left")
    up_to = np.searchsorted(ordered, higher, side="right")
    return float((below + up_to).sum() / (2 * len(higher) * len(lower)))


def compare_confidence(certain: Floats, uncertain: Floats) -> dict[str, float] | None:
    """Compare top-1 probabilities of certain and uncertain images.

    Returns:
        Number and mean of each, and the AUROC of confidence as a sign of certainty (0.5: none); None where
        one of the two is empty.
    """
    if not len(certain) or not len(uncertain):
        return None
    return {
        "certain_images": len(certain),
        "certain_mean": float(certain.mean()),
        "uncertain_images": len(uncertain),
        "uncertain_mean": float(uncertain.mean()),
        "auroc": auroc(certain, uncertain),
    }
