"""The proof of an import: the archive's answers beside those of the model's own library, and of who knows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from imagebatch_header import ImageError  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
from imagebatch_model import ImageModel  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
from PIL import Image

from imagebatch_training.archive.loaded import load_archive
from imagebatch_training.archive.parity import compare, graph_digests
from imagebatch_training.errors import DataError
from imagebatch_training.imports.answers import Doubles, ask
from imagebatch_training.imports.causes import Case, Cause, find_cause
from imagebatch_training.imports.head import Head
from imagebatch_training.imports.heads import SoftmaxHead
from imagebatch_training.imports.network import Network, Source
from imagebatch_training.imports.pictures import Picture
from imagebatch_training.imports.preprocessing import Preprocessing
from imagebatch_training.imports.transforms import numbers
from imagebatch_training.imports.truth import Labels, Told, Truth

_CLOSE: Final = 1e-2
"""Largest difference of a probability, or of a score in its spread, between two libraries that compute one
graph on equal pixels."""
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
        output: Position of the output with the classes, or the score.
        head: What its numbers mean.
        raw: The model's own library, its own preprocessing: float64 (images, classes).
        answers: The archive's logits, float64 (images, classes), or scores (images, 1).
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
    head: Head
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
    def values(self) -> Doubles:
        """The archive's probabilities (images, classes), or scores (images, 1)."""
        return self.head.values(self.answers)

    @property
    def wanted(self) -> Doubles:
        """What the handler should get by the model's own library, as `answers`."""
        return self.head.logits(self.raw, self.pre.outputs)

    @property
    def library(self) -> Truth:
        """The model's own library as the one who knows.

        Raises:
            DataError: Its answers are all alike and prove nothing.
        """
        own = self.head.values(self.wanted)
        return self.head.truth(self.source.network.computes, own, self.agreement)

    def case(self, truth: Truth) -> Case:
        """Make what causes are looked for with."""
        return Case(
            network=self.source.network,
            output=self.output,
            head=self.head,
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


def certify(evidence: Evidence, truth: Truth | None) -> dict[str, Any]:
    """Compare, and refuse what does not fit.

    Args:
        evidence: Both sides' answers.
        truth: What somebody else knows of the images; None: nobody does.

    Returns:
        The certificate, see docs/reference/parity.md.

    Raises:
        DataError: The archive answers otherwise than the model's own library, or than `truth` says; with the
            cause, where it is found.
    """
    head, values = evidence.head, evidence.values
    if truth is not None and not truth.holds(values):
        raise DataError(_unlike(evidence, truth, find_cause(evidence.case(truth), head.names[0])))
    library = evidence.library
    if not library.holds(values):
        raise DataError(_unlike_library(evidence, library))
    sets = [{"name": "drawn images" if evidence.drawn else "images"} | _compared(evidence, library, truth)]
    if truth is not None:
        _look_for_better(evidence, truth)
        if isinstance(truth, Told):
            sets.append({"name": truth.by} | head.figures(truth.score(values), truth))
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
        "preprocessing": asdict(evidence.pre) | head.config(),
        "left_out": evidence.left_out,
        "threshold": {"agreement": evidence.agreement, **head.limits},
        "sets": sets,
        "passed": True,
    }


def _compared(evidence: Evidence, library: Truth, truth: Truth | None) -> dict[str, Any]:
    """Compare with the model's own library.

    Raises:
        DataError: A run would refuse every answer.
    """
    head, values = evidence.head, evidence.values
    score = library.score(values)
    if isinstance(head, SoftmaxHead):
        targets = truth.classes if isinstance(truth, Labels) else np.full(len(values), -1)
        found = compare(evidence.wanted, evidence.answers, targets, np.arange(len(values)))
        return found | {"near_ties": score.ties}
    impossible = int((~head.possible(values)).sum())
    if impossible == len(values):
        raise DataError(
            f"not imported: the score of none of the {len(values)} images is within the limits of "
            f"--quantity: they lie between {values.min():.4g} and {values.max():.4g}"
        )
    return head.figures(score, library) | ({"out_of_range": impossible} if impossible else {})


def _look_for_better(evidence: Evidence, truth: Truth) -> None:
    """Refuse preprocessing with which labelled images come out worse than with another.

    Raises:
        DataError: They do.
    """
    score = truth.score(evidence.values)
    if not isinstance(truth, Labels) or score.agreeing >= _GOOD * score.images:
        return
    cause = find_cause(evidence.case(truth), evidence.head.names[0], most=_LABELLED)
    if cause is not None:
        raise DataError(_unlike(evidence, truth, cause))


def _unlike(evidence: Evidence, truth: Truth, cause: Cause | None) -> str:
    now = truth.score(evidence.values)
    said = f"not imported: the archive {evidence.head.does} {truth.by} on {now}"
    if cause is None:
        question = f"do model, images and {truth.by} belong together?"
        return f"{said}; nothing else that was tried explains it: {question}"
    return f"{said}. Cause: {cause.text}; with {cause.remedy} on {cause.score}"


def _unlike_library(evidence: Evidence, library: Truth) -> str:
    """Say why an archive is unlike the model's own library."""
    score = library.score(evidence.values)
    said = f"not imported: the archive {evidence.head.does} {library.by} on {score}"
    if evidence.source.published:
        # What the weights were published with is known: the declared preprocessing is another.
        cause = find_cause(evidence.case(library), evidence.head.names[0])
        if cause is not None:
            return f"{said}. Cause: {cause.text}: these weights want {cause.remedy}"
    worst = _on_equal_pixels(evidence) / library.scale
    if worst > _CLOSE:
        return f"{said}. Cause: OpenVINO's conversion, {evidence.head.off.format(worst)} on equal pixels"
    return f"{said}. Cause: the images are resized otherwise, as the graph is the same on equal pixels"


def _on_equal_pixels(evidence: Evidence) -> float:
    """Return the largest difference of what is answered where both sides get the archive's own pixels."""
    model, head = load_archive(evidence.folder), evidence.head
    network: Network = evidence.source.network
    worst = 0.0
    for file in evidence.files[:8]:
        pixels = model.decode(file.path.read_bytes())
        planes = numbers(pixels.permute(1, 2, 0).numpy(), evidence.pre)
        raw = ask(network, evidence.pre, evidence.output, planes)[None].astype(np.float64)
        own = head.values(head.logits(raw, evidence.pre.outputs))
        archive = head.values(model.infer(pixels)[None].astype(np.float64))
        worst = max(worst, float(np.abs(own - archive).max()))
    return worst
