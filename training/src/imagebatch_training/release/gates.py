"""The gates: what a challenger must hold to before a server loads it. Pure functions of models' answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imagebatch_training import metrics
from imagebatch_training.errors import DataError
from imagebatch_training.settings import Release


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said of the test images.

    Attributes:
        logits: float64 (images, classes), in the order of `labels`.
        labels: Class names of the model.
        seconds: (images,) decoding and inference, each alone.
    """

    logits: metrics.Floats
    labels: Sequence[str]
    seconds: metrics.Floats

    def correct(self, truth: Sequence[str]) -> metrics.Integers:
        """Tell of each image (1 or 0) whether its class was named, by name: orders may differ."""
        named = [self.labels[index] for index in self.logits.argmax(1)]
        return np.array([said == true for said, true in zip(named, truth, strict=True)], dtype=np.int64)

    @property
    def confidence(self) -> metrics.Floats:
        """Probability of the class named, per image."""
        highest: metrics.Floats = metrics.softmax(self.logits).max(1)
        return highest


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The test images: of each its class and its block."""

    classes: Sequence[str]
    blocks: metrics.Integers


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate.

    Attributes:
        name: As in the report.
        figure: What was measured; None: there was nothing to compare with.
        limit: What it is held to; None: none applies.
        passed: Whether the challenger may go on.
        sentence: All of it in words.
    """

    name: str
    figure: float | None
    limit: float | None
    passed: bool
    sentence: str


def judge(
    challenger: Answers,
    champion: Answers | None,
    truth: Truth,
    parity: Mapping[str, Any],
    release: Release,
) -> list[Gate]:
    """Hold a challenger to its gates.

    Args:
        challenger: Answers to the test images, from the archive itself.
        champion: Those of what is served, on the same images, timed in turn; None: nothing is.
        truth: Classes and blocks of these images.
        parity: The challenger's certificate (`archive.parity`).
        release: The limits.

    Returns:
        In the order of the report; without a champion those that need none.
    """
    gates = [_above_chance(challenger, truth)]
    if champion is not None:
        gates += [
            _not_worse(challenger, champion, truth, release.overall_drop),
            _no_class_worse(challenger, champion, truth, release.class_drop),
        ]
    gates += [_parity(parity), _calibrated(challenger, truth, release.calibration)]
    if champion is not None:
        gates.append(_as_quick(challenger, champion, release.latency_ratio))
    return gates


def require_passed(gates: Sequence[Gate], name: str) -> None:
    """Refuse a challenger that a gate has stopped.

    Raises:
        DataError: One has; every failed gate's sentence.
    """
    failed = [gate.sentence for gate in gates if not gate.passed]
    if failed:
        raise DataError(f"{name} is not released: {'; '.join(failed)}")


def render(gates: Sequence[Gate]) -> str:
    """Write one line per gate."""
    return "\n".join(f"  {'pass' if gate.passed else 'FAIL'}  {gate.name}: {gate.sentence}" for gate in gates)


def as_json(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """Give the gates as JSON types."""
    return [asdict(gate) for gate in gates]


def _above_chance(challenger: Answers, truth: Truth) -> Gate:
    """Ask for more than always naming the commonest class: of shuffled labels no model learns that."""
    correct = challenger.correct(truth.classes)
    low, high = _interval(correct, truth.blocks)
    low = min(low, metrics.wilson(int(correct.sum()), len(correct))[0])  # few blocks, all right, are no proof
    majority = max(truth.classes.count(name) for name in set(truth.classes)) / len(truth.classes)
    return Gate(
        name="above chance",
        figure=round(low, 4),
        limit=round(majority, 4),
        passed=low > majority,
        sentence=f"accuracy {correct.mean():.3f} (95 % interval {low:.3f} to {high:.3f}) on"
        f" {len(correct)} test images, where the commonest class alone gives {majority:.3f}",
    )


def _not_worse(challenger: Answers, champion: Answers, truth: Truth, drop: float) -> Gate:
    change = challenger.correct(truth.classes) - champion.correct(truth.classes)
    low, high = _interval(change, truth.blocks)
    figure = float(change.mean())
    return Gate(
        name="not worse overall",
        figure=round(figure, 4),
        limit=-drop,
        passed=high >= 0 and figure >= -drop,
        sentence=f"accuracy changes by {figure:+.3f} against the champion (paired 95 % interval {low:+.3f} to"
        f" {high:+.3f}, {len(np.unique(truth.blocks))} blocks); it may fall by {drop:.3f}, and not beyond its"
        " interval",
    )


def _no_class_worse(challenger: Answers, champion: Answers, truth: Truth, drop: float) -> Gate:
    after, before = challenger.correct(truth.classes), champion.correct(truth.classes)
    classes = np.array(truth.classes)
    changes = {
        str(name): float(after[classes == name].mean() - before[classes == name].mean())
        for name in sorted(set(truth.classes))
    }
    worst = min(changes, key=lambda name: changes[name])
    return Gate(
        name="no class worse",
        figure=round(changes[worst], 4),
        limit=-drop,
        passed=changes[worst] >= -drop - 1e-9,
        sentence=f"the recall of {worst} changes by {changes[worst]:+.3f} on {int((classes == worst).sum())}"
        f" images, the most of {len(changes)} classes; it may fall by {drop:.3f}",
    )


def _parity(certificate: Mapping[str, Any]) -> Gate:
    agreement = min(one["agreement"] for one in certificate["sets"])
    threshold = certificate["threshold"]["agreement"]
    return Gate(
        name="parity",
        figure=agreement,
        limit=threshold,
        passed=bool(certificate["passed"]),
        sentence=f"the archive names float32 torch's class on {agreement:.2%} of the images,"
        f" {threshold:.2%} are asked for",
    )


def _calibrated(challenger: Answers, truth: Truth, limit: float) -> Gate:
    correct = challenger.correct(truth.classes).astype(bool)
    error = metrics.calibration_error(challenger.confidence, correct)
    return Gate(
        name="calibration",
        figure=round(error, 4),
        limit=limit,
        passed=error <= limit,
        sentence=f"confidence and accuracy are {error:.3f} apart on average, {limit:.3f} is the most",
    )


def _as_quick(challenger: Answers, champion: Answers, limit: float) -> Gate:
    after, before = (float(np.median(one.seconds)) * 1000 for one in (challenger, champion))
    ratio = after / before
    return Gate(
        name="latency",
        figure=round(ratio, 3),
        limit=limit,
        passed=ratio <= limit,
        sentence=f"an image takes {after:.1f} ms where the champion takes {before:.1f} ms, {ratio:.2f} times"
        f" as long; {limit:.2f} times is the most",
    )


def _interval(values: metrics.Integers, blocks: metrics.Integers) -> metrics.Interval:
    """Draw whole blocks where there are several, else images."""
    several = len(np.unique(blocks)) > 1
    return metrics.block_bootstrap(values, blocks if several else np.arange(len(values)))
