"""The proof of an import: the archive's answers beside those of the model's own library, and of who knows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from imagebatch_header import ImageError  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
from imagebatch_model import ImageModel  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
from PIL import Image

from imagebatch_training import metrics
from imagebatch_training.archive.loaded import load_archive
from imagebatch_training.archive.parity import compare, graph_digests
from imagebatch_training.errors import DataError
from imagebatch_training.imports.answers import Doubles, as_logits, as_probabilities, ask
from imagebatch_training.imports.causes import Case, Cause, find_cause
from imagebatch_training.imports.network import Network, Source
from imagebatch_training.imports.pictures import Picture
from imagebatch_training.imports.preprocessing import Preprocessing
from imagebatch_training.imports.transforms import numbers
from imagebatch_training.imports.truth import MOVED, TIE, Answers, Labels, Truth, near_ties

_CLOSE: Final = 1e-2
"""Largest difference of a probability between two libraries that compute one graph on equal pixels."""
_GOOD: Final = 0.95
"""An accuracy above which nothing better is looked for."""
_LABELLED: Final = 96


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What both sides answer.

    Attributes:
        name: Of the archive.
        source: Of the model.
        pre: As declared, outputs included.
        output: Position of the classes' output.
        raw: The model's own library, its own preprocessing: float64 (images, classes).
        answers: The archive's logits, float64 (images, classes).
        described: By the archive.
        folder: Of the archive's files.
        shown: The images, upright RGB, as Pillow reads them.
        files: The same, as they lie there.
        drawn: Whether they were drawn for want of others.
        left_out: Images that archive or Pillow do not read, or Pillow sees in a way of its own.
        pixels: What made the pixels of `raw`, in words.
        agreement: Share of images that must agree.
    """

    name: str
    source: Source
    pre: Preprocessing
    output: int
    raw: Doubles
    answers: Doubles
    described: Mapping[str, Any]
    folder: Path
    shown: Sequence[Image.Image]
    files: Sequence[Picture]
    drawn: bool
    left_out: int
    pixels: str
    agreement: float

    @property
    def probabilities(self) -> Doubles:
        """The archive's probabilities, (images, classes)."""
        found: Doubles = metrics.softmax(self.answers)
        return found

    def case(self, truth: Truth) -> Case:
        """Make what causes are looked for with."""
        return Case(
            network=self.source.network,
            output=self.output,
            pre=self.pre,
            pictures=self.shown,
            truth=truth,
            any_size=None in self.source.network.shape[1:],
        )


def archive_logits(model: ImageModel, files: Sequence[Picture]) -> list[Doubles | None]:
    """Ask the archive about files: float64 (classes,) each, None where it refuses one."""
    return [_logits(model, file.path.read_bytes()) for file in files]


def _logits(model: ImageModel, data: bytes) -> Doubles | None:
    try:
        found: Doubles = model.infer(model.decode(data)).astype(np.float64)
    except ImageError:
        return None
    return found


def certify(evidence: Evidence, truth: Truth | None, labels: Sequence[str]) -> dict[str, Any]:
    """Compare, and refuse what does not fit.

    Args:
        evidence: Both sides' answers.
        truth: What somebody else knows of the images; None: nobody does.
        labels: Of the classes.

    Returns:
        The certificate, see docs/reference/parity.md.

    Raises:
        DataError: The archive answers otherwise than the model's own library, or than `truth` says; with the
            cause, where it is found.
    """
    wanted = as_logits(evidence.raw, evidence.pre.outputs)
    targets = truth.classes if isinstance(truth, Labels) else np.full(len(wanted), -1)
    compared = compare(wanted, evidence.answers, targets, np.arange(len(wanted)))
    other = evidence.answers.argmax(1) != wanted.argmax(1)
    compared["near_ties"] = int((near_ties(metrics.softmax(wanted), evidence.answers) & other).sum())
    sets = [{"name": "drawn images" if evidence.drawn else "images"} | compared]
    if truth is not None and not truth.holds(evidence.probabilities):
        raise DataError(_unlike(evidence, truth, find_cause(evidence.case(truth), labels)))
    enough = compared["agreeing"] + compared["near_ties"] >= evidence.agreement * compared["images"]
    if not enough or compared["probability_change"]["mean"] > MOVED:
        raise DataError(_unlike_library(evidence, compared, labels))
    if truth is not None:
        _look_for_better(evidence, truth, labels)
        if isinstance(truth, Answers):
            sets.append(_expected(truth, evidence.probabilities))
    source = evidence.source
    return {
        "certificate": "imagebatch parity 1",
        "name": evidence.name,
        "engine": {key: evidence.described[key] for key in ("engine", "precision")},
        "graphs": graph_digests(evidence.folder),
        "input": evidence.described["input"],
        "reference": {
            "source": source.kind,
            "files": dict(source.sha256),
            "computes": source.network.computes,
            "pixels": evidence.pixels,
        },
        "preprocessing": asdict(evidence.pre),
        "left_out": evidence.left_out,
        "threshold": {"agreement": evidence.agreement, "probability_change": MOVED, "near_tie": TIE},
        "sets": sets,
        "passed": True,
    }


def _look_for_better(evidence: Evidence, truth: Truth, labels: Sequence[str]) -> None:
    """Refuse preprocessing with which labelled images come out worse than with another.

    Raises:
        DataError: They do.
    """
    score = truth.score(evidence.probabilities)
    if not isinstance(truth, Labels) or score.agreeing >= _GOOD * score.images:
        return
    cause = find_cause(evidence.case(truth), labels, most=_LABELLED)
    if cause is not None:
        raise DataError(_unlike(evidence, truth, cause))


def _unlike(evidence: Evidence, truth: Truth, cause: Cause | None) -> str:
    now = truth.score(evidence.probabilities)
    said = f"not imported: the archive names the class of {truth.by} on {now}"
    if cause is None:
        question = f"do model, images and {truth.by} belong together?"
        return f"{said}; nothing else that was tried explains it: {question}"
    return f"{said}. Cause: {cause.text}; with {cause.remedy} on {cause.score}"


def _unlike_library(evidence: Evidence, compared: Mapping[str, Any], labels: Sequence[str]) -> str:
    """Say why an archive is unlike the model's own library."""
    moved = compared["probability_change"]["mean"]
    said = (
        f"not imported: the archive names the class of {evidence.source.network.computes} on "
        f"{compared['agreeing']} of {compared['images']} images, a probability moves by {moved:.3f} on "
        "average"
    )
    if evidence.source.published:
        # What the weights were published with is known: the declared preprocessing is another.
        probabilities = as_probabilities(evidence.raw, evidence.pre.outputs)
        truth = Answers(evidence.pixels, probabilities.argmax(1), probabilities, evidence.agreement)
        cause = find_cause(evidence.case(truth), labels)
        if cause is not None:
            return f"{said}. Cause: {cause.text}: these weights want {cause.remedy}"
    worst = _on_equal_pixels(evidence)
    if worst > _CLOSE:
        return (
            f"{said}. Cause: OpenVINO's conversion, a probability is another by {worst:.3f} on equal pixels"
        )
    return f"{said}. Cause: the images are resized otherwise, as the graph is the same on equal pixels"


def _on_equal_pixels(evidence: Evidence) -> float:
    """Return the largest difference of a probability where both sides get the archive's own pixels."""
    model = load_archive(evidence.folder)
    network: Network = evidence.source.network
    worst = 0.0
    for file in evidence.files[:8]:
        pixels = model.decode(file.path.read_bytes())
        planes = numbers(pixels.permute(1, 2, 0).numpy(), evidence.pre)
        raw = ask(network, evidence.pre, evidence.output, planes)[None].astype(np.float64)
        own = as_probabilities(raw, evidence.pre.outputs)
        archive = metrics.softmax(model.infer(pixels)[None].astype(np.float64))
        worst = max(worst, float(np.abs(own - archive).max()))
    return worst


def _expected(truth: Answers, probabilities: Doubles) -> dict[str, Any]:
    score = truth.score(probabilities)
    result: dict[str, Any] = {
        "name": truth.by,
        "images": score.images,
        "agreeing": score.agreeing,
        "agreement": round(score.agreeing / score.images, 6),
        "interval": [round(end, 6) for end in metrics.wilson(score.agreeing, score.images)],
    }
    if score.moved is not None:
        result |= {"probability_change": {"mean": round(score.moved, 6)}, "near_ties": score.ties}
    return result
