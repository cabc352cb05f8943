"""The command `review`: hand predictions of a finished run to people, as files for the tool that they use."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import ConfigurationError, NothingToDoError, one_line
from imagebatch.images.decoders import Decoders
from imagebatch.images.places import Place, places
from imagebatch.images.sample import at_page
from imagebatch.inputs.source import image_source
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.log import get_logger
from imagebatch.review import cvat, label_studio, table
from imagebatch.review.bundle import PICTURES, Asked, Bundle, picture_name
from imagebatch.review.queue import Predicted, Queue, choose, require_one_class
from imagebatch.review.record import keep_review, read_review
from imagebatch.runs.certificate import recorded_certificate
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import RunFolder, open_run, storage_error
from imagebatch.settings import ReviewSettings

log = get_logger()

_ALL = 2**31


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What was handed out.

    Attributes:
        out: The folder.
        pictures: Images in it.
        queued: Of these, the least certain.
        sampled: Of these, those of the random sample; an image may be both.
        beyond_limit: Predictions below the threshold that are not in it.
        unavailable: Images that cannot be had or shown, or are not what was scored any more.
    """

    out: str
    pictures: int
    queued: int
    sampled: int
    beyond_limit: int
    unavailable: int


def review(settings: ReviewSettings) -> HandedOut:
    """Write a folder with pictures, and what the tool imports.

    Raises:
        ConfigurationError: The run has not finished or marks nothing, its model names no single class, or the
            folder holds something.
        NothingToDoError: There is nothing to look at.
        StorageError: The inputs cannot be read, or the folder not written.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    recorded_certificate(run)
    description = read_description(run)
    require_one_class(description)
    target = _empty(Path(settings.out))
    queue = choose(
        run,
        settings.run_id,
        below=_below(settings, description),
        limit=settings.limit or _ALL,
        sample=settings.sample,
    )
    if not queue.items:
        raise NothingToDoError(f"no prediction of run {settings.run_id} is to be looked at")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as made:
            folder = Path(made) / target.name
            (folder / PICTURES).mkdir(parents=True)
            bundle = _bundle(run, description, queue, folder, shows=settings.predictions)
            _write(bundle, folder, settings)
            os.replace(folder, target)  # noqa: PTH105 (what is there is an empty folder, or nothing)
    except OSError as error:
        raise storage_error("write", target, error) from error
    _remember(settings)
    queued = sum(asked.predicted.queued for asked in bundle.asked)
    return HandedOut(
        out=str(target),
        pictures=len(bundle.asked),
        queued=queued,
        sampled=sum(asked.predicted.sampled for asked in bundle.asked),
        beyond_limit=queue.doubtful - sum(one.queued for one in queue.items),
        unavailable=len(queue.items) - len(bundle.asked),
    )


def _below(settings: ReviewSettings, description: RunDescription) -> float | None:
    if not settings.queue:
        return None
    below = description.review_below if settings.below is None else settings.below
    if below is None and not settings.sample:
        raise ConfigurationError(
            f"run {settings.run_id} marks no prediction for review: give --below P, or --sample"
        )
    return below


def _empty(target: Path) -> Path:
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigurationError(f"--out {target} holds something already: give a new folder")
    except OSError as error:
        raise storage_error("read", target, error) from error
    return target.absolute()


def _bundle(
    run: RunFolder, description: RunDescription, queue: Queue, folder: Path, *, shows: bool
) -> Bundle:
    from PIL import Image  # noqa: PLC0415 (for the sizes of pictures that were just made)

    found = dict(places(run, {one.image_id for one in queue.items}))
    source, view = image_source(description), description.model.seen

    def shown(one: Predicted) -> tuple[bytes, str]:
        place: Place = found[one.image_id]
        try:
            data = source.read(place.uri)
        except ImageUnavailableError as gone:
            return b"", f"{gone.reason}: {gone.detail}"
        if sha256_hex(data) != one.sha256:
            return b"", "it is not the file that was scored any more"
        picture = decoders.preview(data, at_page(view, place.page))
        return picture, "" if picture else "it cannot be shown"

    asked: list[Asked] = []
    with Decoders() as decoders:
        for one, (picture, why) in zip(queue.items, decoders.map(shown, queue.items), strict=True):
            if not picture:
                log.warning("not handed out", image_id=one_line(one.image_id, 100), reason=one_line(why, 200))
                continue
            name = picture_name(len(asked) + 1, one.image_id)
            (folder / PICTURES / name).write_bytes(picture)
            with Image.open(io.BytesIO(picture)) as header:
                asked.append(Asked(one, name, *header.size))
    if not asked:
        raise ConfigurationError(
            f"none of the {len(queue.items)} images of run {description.run_id} can be had any more: is its"
            " input where it was?"
        )
    return Bundle(description.run_id, description.model, asked, shows)


def _write(bundle: Bundle, folder: Path, settings: ReviewSettings) -> None:
    match settings.format:
        case "label-studio":
            label_studio.write(bundle, folder, settings.image_url)
        case "cvat":
            cvat.write(bundle, folder)
        case "csv":
            table.write(bundle, folder)


def _remember(settings: ReviewSettings) -> None:
    """Keep the size of the sample: labels that come back are told from those of the queue by it."""
    found = read_review(settings.runs_uri, settings.run_id)
    if settings.sample > found.sample:
        keep_review(settings.runs_uri, found.model_copy(update={"sample": settings.sample}))
