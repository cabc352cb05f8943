"""Why a model answers otherwise than it shall: what is wrong is found by trying what else could be meant."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from imagebatch_training.errors import DataError
from imagebatch_training.imports.answers import Doubles, raw_answers
from imagebatch_training.imports.head import Head
from imagebatch_training.imports.network import Network
from imagebatch_training.imports.preprocessing import Preprocessing, shown
from imagebatch_training.imports.transforms import reference
from imagebatch_training.imports.truth import Truth
from imagebatch_training.progress import progress

log = logging.getLogger(__name__)

_IMAGES: Final = 24
_FEW: Final = 12
"""Images that one wrong thing, and two at once, are looked for with: every try asks the model about each."""
_MOST_PIXELS: Final = 300_000_000
"""Of all images that are kept open: 900 MB."""
_CLEAR: Final = 0.005
"""Mean change of a probability below which an answer is the same, and nothing better need be looked for."""
_SIDES: Final = (128, 160, 192, 224, 256, 288, 299, 320, 384)
_RATIOS: Final = (1.0, 0.95, 0.9655, 0.9, 0.875)
"""Of crop to resize, as libraries have them."""

_ORDER: Final = 2
"""Labels that change places, at least."""

_Mean = tuple[float, ...]
_NORMALISATIONS: Final[tuple[tuple[str, _Mean, _Mean], ...]] = (
    ("0-1", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("0-1", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ("0-1", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("0-255", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("0-255", (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    ("0-1", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
)
"""ImageNet's; -1 to 1; plain 0 to 1; plain 0 to 255; Caffe's; CLIP's."""


class Cause(NamedTuple):
    """What was wrong.

    Attributes:
        text: In words.
        remedy: Flags that put it right.
        score: How the answers fit with them, in words.
    """

    text: str
    remedy: str
    score: str


@dataclass(frozen=True)
class _Try:
    """One thing that could be meant."""

    group: str
    change: Callable[[Preprocessing], Preprocessing]
    twice: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and images that somebody knows the answers to.

    Attributes:
        network: The model.
        output: Position of the output with the classes, or the score.
        head: What its numbers mean.
        pre: As declared.
        pictures: Upright RGB.
        truth: What is known of them.
        any_size: Whether the model takes inputs of any size.
    """

    network: Network
    output: int
    head: Head
    pre: Preprocessing
    pictures: Sequence[Image.Image]
    truth: Truth
    any_size: bool

    def part(self, most: int) -> "Case":
        """Return the case with at most so many images that something is known of, evenly spread, opened."""
        known = [row for row, found in enumerate(self.truth.known) if found]
        rows: list[int] = []
        pictures: list[Image.Image] = []
        pixels = 0
        for row in known[:: max(1, -(-len(known) // most))]:
            picture = self.pictures[row]
            pixels += picture.width * picture.height
            if rows and pixels > _MOST_PIXELS:
                break
            rows.append(row)
            pictures.append(picture)
        return replace(self, pictures=pictures, truth=self.truth.part(rows))

    def answers(self, pre: Preprocessing, *, twice: bool = False) -> Doubles:
        """Ask the model's own library; what is answered, (images, classes)."""
        raw = raw_answers(self.network, pre, self.output, reference(pre), self.pictures)
        found = self.head.values(self.head.logits(raw, pre.outputs))
        return self.head.values(found) if twice else found


def find_cause(case: Case, labels: Sequence[str], *, most: int = _IMAGES) -> Cause | None:
    """Look for one wrong thing that explains what is known, and then for two at once.

    Args:
        case: With answers that do not fit.
        labels: Of the classes.
        most: Images to look with.

    Returns:
        The best explanation; None where there is none.
    """
    small = case.part(most)
    now = small.answers(case.pre)
    tries = list(_tries(case))
    found = _best(small, [(one,) for one in tries], now)
    if found is None:
        order = _order(small.truth, now, labels)
        if order is not None:
            return order
        few = case.part(min(most, _FEW))
        pairs = [(a, b) for a, b in itertools.combinations(tries, 2) if a.group != b.group and not b.twice]
        found = _best(few, pairs, few.answers(case.pre))
        if found is not None and not small.truth.explains(small.answers(_changed(case.pre, found)), now):
            found = None
    if found is None:
        return None
    pre, twice = _changed(case.pre, found), any(one.twice for one in found)
    score = small.truth.score(small.answers(pre, twice=twice))
    return Cause(_words(case.pre, pre, case.head.ends if twice else ""), _flags(case.pre, pre), str(score))


def _tries(case: Case) -> Iterator[_Try]:
    pre = case.pre
    for pixels, mean, std in _NORMALISATIONS:
        turned = (mean[::-1], std[::-1]) if pre.channel_order == "bgr" else (mean, std)
        yield _Try("values", _setter(pixel_range=pixels, mean=turned[0], std=turned[1]))
    yield _Try("values", _setter(pixel_range="0-255" if pre.pixel_range == "0-1" else "0-1"))
    order = "rgb" if pre.channel_order == "bgr" else "bgr"
    yield _Try("channels", _setter(channel_order=order))
    yield _Try("channels", _turner(order))
    other = "bilinear" if pre.interpolation == "bicubic" else "bicubic"
    yield _Try("filter", _setter(interpolation=other))
    for size in (pre.crop, *(_SIDES if case.any_size else ())):
        for fit, resize, padding in _squares(size):
            yield _Try("square", _setter(fit=fit, resize=resize, crop=size, padding=padding))
    if case.head.ends:
        yield _Try(case.head.ends, _setter(), twice=True)


def _squares(crop: int) -> Iterator[tuple[str, int, str]]:
    """Yield ways to a square of a size: fit, resize, padding."""
    for ratio in _RATIOS:
        yield "crop", round(crop / ratio), "black"
    yield "squash", crop, "black"
    yield "squash", round(crop / 0.875), "black"
    for colour in ("black", "grey", "white"):
        yield "pad", crop, colour


def _turner(order: str) -> Callable[[Preprocessing], Preprocessing]:
    """Swap channels, and mean and standard deviation with them."""
    return lambda pre: replace(pre, channel_order=order, mean=pre.mean[::-1], std=pre.std[::-1])


def _setter(**values: object) -> Callable[[Preprocessing], Preprocessing]:
    return lambda pre: replace(pre, **values)  # type: ignore[arg-type]  # fields of Preprocessing, by name


def _changed(pre: Preprocessing, tries: Sequence[_Try]) -> Preprocessing:
    for one in tries:
        pre = one.change(pre)
    return pre


def _best(case: Case, combinations: Sequence[tuple[_Try, ...]], now: Doubles) -> tuple[_Try, ...] | None:
    """Return what explains best: most images agree, and then least is moved; the first of equals."""
    best, key = None, (-1, 0.0)
    for tries in progress(combinations, "looking for the cause, tries"):
        pre, twice = _changed(case.pre, tries), any(one.twice for one in tries)
        if pre == case.pre and not twice:
            continue
        try:
            answers = case.answers(pre, twice=twice)
        except DataError:  # a size that the model does not take, or values that overflow
            continue
        score = case.truth.score(answers)
        log.debug("tried %s: %s", _flags(case.pre, pre), score)
        rank = (score.agreeing, -(score.moved or 0.0))
        if case.truth.explains(answers, now) and rank > key:
            best, key = tries, rank
            if score.agreeing == score.images and score.moved is not None and score.moved < _CLEAR:
                break
    return best


def _order(truth: Truth, now: Doubles, labels: Sequence[str]) -> Cause | None:
    """See whether the classes are right but for their names: each answer mostly stands for one other."""
    meant = truth.meant(now) or {}
    other = [said for said, index in meant.items() if said != index]
    one_to_one = len(set(meant.values())) == len(meant)
    if not one_to_one or len(other) < _ORDER:
        return None
    left = iter(sorted(set(range(len(labels))) - set(meant.values())))
    order = [meant[said] if said in meant else next(left) for said in range(len(labels))]
    renamed = np.empty_like(now)
    renamed[:, order] = now
    if not truth.explains(renamed, now):
        return None
    pair = f"what is called {labels[other[0]]!r} is {labels[meant[other[0]]]!r}"
    remedy = "--labels with the names in the order of the model's outputs"
    return Cause(f"the labels are in another order: {pair}", remedy, str(truth.score(renamed)))


def _words(before: Preprocessing, after: Preprocessing, twice: str) -> str:
    """Name what is different, and what was done twice."""
    changed = {
        field.name for field in fields(before) if getattr(before, field.name) != getattr(after, field.name)
    }
    named = [text for text, names in _NAMED if changed & names]
    if "wrong normalisation" in named and "wrong value range" in named:
        named.remove("wrong value range")  # one cannot be told from the other
    return " and ".join(named + [f"a {twice} too many in what is expected"] * bool(twice))


_NAMED: Final = (
    ("wrong normalisation", {"mean", "std"}),
    ("wrong value range", {"pixel_range"}),
    ("swapped channels", {"channel_order"}),
    ("wrong resize or crop", {"resize", "crop", "fit", "padding"}),
    ("wrong interpolation", {"interpolation"}),
)


def _flags(before: Preprocessing, after: Preprocessing) -> str:
    """Write what is changed as flags."""
    changed = [
        field.name for field in fields(before) if getattr(before, field.name) != getattr(after, field.name)
    ]
    flags = [f"--{name.replace('_', '-')} {shown(getattr(after, name))}" for name in changed]
    return " ".join(flags) or "nothing to change here"
