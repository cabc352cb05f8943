"""`imagebatch shadow`: two versions of a model on images of a finished run, their disagreements as pictures.

Nothing of the run is written. What the page shows are pictures of the run: keep it where the run may be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from imagebatch import __version__
from imagebatch.contracts.records import HeadKind, ModelPin, RunDescription
from imagebatch.errors import ConfigurationError, NothingToDoError, StorageError
from imagebatch.heads import head_of
from imagebatch.heads.base import Head
from imagebatch.history.summary import read_history
from imagebatch.images.decoders import Decoders
from imagebatch.images.sample import chosen_rows
from imagebatch.inputs.source import image_source
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.local_file import replace_text
from imagebatch.log import get_logger
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import Answer, ImagePayload, ModelApi
from imagebatch.model_apis.retry import patiently
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import ShadowSettings

log = get_logger()

Row = dict[str, Any]

_PACK = 16  # images of a request: a small part of what a night asks for at once
_SHOWN = 120  # pictures of a page; the others are counted
_APART = 0.02  # of a regression's range: scores that are further apart are another answer


@dataclass(frozen=True, slots=True)
class Shadow:
    """What two versions said of the same images.

    Attributes:
        run: Whose images.
        images: That both were asked about.
        different: To which they gave another answer.
        unavailable: That could not be read any more.
        new: Version that was looked at.
        old: Version that it was compared with.
        page: The page.
    """

    run: str
    images: int
    different: int
    unavailable: int
    new: str
    old: str
    page: str


def shadow(settings: ShadowSettings) -> Shadow:
    """Ask two versions about a sample of a finished run, and draw where they differ.

    Raises:
        NothingToDoError: There is no finished run of this model.
        ConfigurationError: A version is not served, or they are not of one head.
        ModelApiUnavailableError: The server does not answer.
        StorageError: The page cannot be written.
    """
    run_id = settings.run_id or _newest(settings)
    run = open_run(settings.runs_uri, run_id)
    description = read_description(run)
    versions = (settings.against, settings.model_version)
    apis = [open_backend("torchserve", settings, settings.model, version) for version in versions]
    old, new = (patiently(api.describe, settings.retry_seconds) for api in apis)
    if old.declaration != new.declaration:
        raise ConfigurationError(f"{old.version} and {new.version} of {new.name} have different heads")
    compared = _Compared(new)
    for rows, payloads in _packs(run, description, settings.sample, compared):
        compared.add(rows, *(_answers(api, payloads, new, settings.retry_seconds) for api in apis))
    if not compared.images:
        raise NothingToDoError(f"no image of run {run_id} can be read any more")
    page = _page(run, description, (old, new), compared)
    _write(Path(settings.output), page)
    log.info("versions compared", run=run_id, images=compared.images, different=len(compared.rows))
    return Shadow(
        run=run_id,
        images=compared.images,
        different=len(compared.rows),
        unavailable=compared.unavailable,
        new=new.version,
        old=old.version,
        page=settings.output,
    )


class _Compared:
    """Answers side by side, as they come."""

    def __init__(self, model: ModelPin) -> None:
        self.head: Head = head_of(model, max(1, len(model.labels)))
        self._kind = model.head
        self.images = 0
        self.unavailable = 0
        self.rows: list[Row] = []
        self.moves: Counter[tuple[str, str]] = Counter()

    def add(self, rows: Sequence[Row], before: Sequence[Answer], after: Sequence[Answer]) -> None:
        self.images += len(rows)
        for row, one, other in zip(rows, before, after, strict=True):
            if self._alike(one, other):
                continue
            words = [answer.reason or self.head.words(answer) for answer in (one, other)]
            self.moves[self._short(one), self._short(other)] += 1
            self.rows.append(
                {"image_id": row["image_id"], "old": words[0], "new": words[1], "sure": _sure(one, other)}
            )

    def _alike(self, one: Answer, other: Answer) -> bool:
        if one.reason or other.reason:
            return one.reason == other.reason
        if self._kind is HeadKind.REGRESSION:
            return self.head.off(one, other) <= _APART
        if self._kind is HeadKind.MULTILABEL:
            return set(one.labels) == set(other.labels)
        return one.labels[:1] == other.labels[:1]

    def _short(self, answer: Answer) -> str:
        if answer.reason:
            return str(answer.reason)
        if self._kind is HeadKind.SOFTMAX:
            return answer.labels[0]
        return "a score" if self._kind is HeadKind.REGRESSION else ", ".join(answer.labels) or "no label"


def _sure(one: Answer, other: Answer) -> float:
    """Return how sure the less sure of the two is: those where both are come first."""
    return min(max(answer.probabilities, default=0.0) for answer in (one, other))


def _answers(
    api: ModelApi, payloads: Sequence[ImagePayload], model: ModelPin, seconds: float
) -> tuple[Answer, ...]:
    return patiently(lambda: api.predict(payloads, max(1, len(model.labels))), seconds).answers


def _newest(settings: ShadowSettings) -> str:
    found = read_history(settings.runs_uri, 1, settings.model)
    if not found:
        raise NothingToDoError(
            f"no finished run of {settings.model} in {settings.runs_uri}: name one by --run-id"
        )
    return found[-1].run_id


def _packs(
    run: RunFolder, description: RunDescription, sample: int, compared: _Compared
) -> Iterator[tuple[list[Row], list[ImagePayload]]]:
    """Read a sample of the run's images, a request's worth at a time."""
    source = image_source(description)
    chosen = iter(chosen_rows(run, description.run_id, sample))
    while some := list(islice(chosen, _PACK)):
        rows, payloads = [], []
        for row in some:
            try:
                data = source.read(row["uri"])
            except ImageUnavailableError:
                compared.unavailable += 1
                continue
            rows.append(row)
            payloads.append(ImagePayload(f"{len(rows)}-shadow", data, page=row.get("page") or 0))
        if rows:
            yield rows, payloads


def _page(
    run: RunFolder, description: RunDescription, versions: tuple[ModelPin, ModelPin], compared: _Compared
) -> str:
    from imagebatch.stages.report.page import render  # noqa: PLC0415 (a third of a second, and not for all)
    from imagebatch.stages.report.pictures import with_thumbnails  # noqa: PLC0415 (a third of a second, and not for all)

    shown = sorted(compared.rows, key=lambda row: (-row["sure"], row["image_id"]))[:_SHOWN]
    with Decoders() as decoders:
        with_thumbnails(run, description, [shown], decoders)
    return render(
        "shadow.html.j2",
        run=description,
        old=versions[0],
        new=versions[1],
        images=compared.images,
        different=len(compared.rows),
        unavailable=compared.unavailable,
        moves=[{"old": old, "new": new, "images": n} for (old, new), n in compared.moves.most_common(40)],
        shown=shown,
        version=__version__,
    )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path.parent}: {error.strerror}") from error
    replace_text(path, text)
