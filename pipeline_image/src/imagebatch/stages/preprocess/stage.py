"""The stage `preprocess`: write `run.json`, the listing, and one manifest file per shard."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from imagebatch_header import MOST_PIXELS

from imagebatch import __version__
from imagebatch.contracts.account import account, in_words
from imagebatch.contracts.ids import FORMULA_START
from imagebatch.contracts.layout import LISTING, PLAN, RUN_JSON
from imagebatch.contracts.records import (
    HeadKind,
    LeftOut,
    LeftOutCounts,
    LeftOutRecord,
    ModelPin,
    Plan,
    RunDescription,
)
from imagebatch.contracts.rows import LISTING_SCHEMA, listing_schema
from imagebatch.errors import (
    ConfigurationError,
    DataRefusedError,
    ImagebatchError,
    NothingToDoError,
    NotProvenError,
    RunMismatchError,
    one_line,
)
from imagebatch.heads import head_of
from imagebatch.inputs.header import Inspection
from imagebatch.inputs.names import absolute, to_uri
from imagebatch.inputs.source import ImageSource, image_source
from imagebatch.log import get_logger
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.retry import patiently
from imagebatch.observe.progress import Progress
from imagebatch.observe.stage import current, observed
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import DAMAGED, RunFolder, open_run
from imagebatch.runs.left_out import Tally, suffix_of, write_left_out
from imagebatch.runs.listing import left_out_metadata, left_out_record, require_columns
from imagebatch.runs.output_csv import prediction_schema
from imagebatch.settings import PreprocessSettings
from imagebatch.settings.scoring import DEFAULT_INCLUDE, EARLIER_INCLUDES, EARLIER_PIXELS
from imagebatch.stages.preprocess.chosen import choose_model
from imagebatch.stages.preprocess.listing import limited, shards_of, sorted_rows
from imagebatch.stages.preprocess.manifests import write_manifests
from imagebatch.stages.preprocess.pages import pages_of_all
from imagebatch.stages.preprocess.review import review_below
from imagebatch.stages.preprocess.sorter import LeftOutFiles
from imagebatch.stages.preprocess.sources import RequestedImages

log = get_logger()

_NAMED = 3  # files that an error names, labels that a warning names


@observed("preprocess")
def preprocess(settings: PreprocessSettings) -> Plan:
    """List, hash and plan a run, or continue where an earlier attempt stopped.

    Raises:
        DataRefusedError: The input holds no image.
        NothingToDoError: The same, and it is allowed to.
        RunMismatchError: The run id was used for other inputs, options or model.
        InputNotFoundError: The input does not exist.
        ConfigurationError: The input lies outside the allowed roots.
        UnknownModelError: The model API does not serve the model.
        ModelApiUnavailableError: The model API did not answer.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    source = image_source(settings)
    listed = run.exists(LISTING)
    if not listed:
        # Before the model API is asked: waiting for it would be in vain if there is nothing to score.
        _require_any(settings, source)
    description = _description(settings, _begun(run))
    if listed:
        _claim(run, description)
    else:
        with LeftOutFiles() as left_out:
            _list_input(run, description, RequestedImages(settings, source, left_out), left_out, source)
    return _inspect_all(run, description, source)


def _require_any(settings: PreprocessSettings, source: ImageSource) -> None:
    with LeftOutFiles() as left_out:
        requested = RequestedImages(settings, source, left_out)
        roots = settings.allowed_roots
        if roots and not settings.query and not source.allows(to_uri(requested.name)):
            raise ConfigurationError(f"{requested.name} is outside the allowed roots ({roots})")
        if not requested.any():
            raise _nothing(requested.name, left_out, allowed=settings.allow_empty)


def _nothing(name: str, left_out: LeftOutFiles, *, allowed: bool) -> ImagebatchError:
    """Say that there is no image, and what there is instead."""
    tally = Tally()
    some: list[str] = []
    for file, reason in left_out.pairs():
        tally.add(reason, suffix_of(file))
        if len(some) < _NAMED:
            some.append(file)
    found = (
        f" ({in_words(tally.counts())}: {', '.join(some)}; see --include)" if some else " and no other file"
    )
    if allowed:
        return NothingToDoError(f"no image in {name}{found}")
    return DataRefusedError(
        f"no image in {name}{found}: is it mounted, has the upload finished?"
        " --allow-empty lets an input be empty"
    )


def _begun(run: RunFolder) -> RunDescription | None:
    return read_description(run) if run.exists(RUN_JSON) else None


def _description(settings: PreprocessSettings, begun: RunDescription | None) -> RunDescription:
    chosen = choose_model(settings, begun)
    api = open_backend(settings.backend, settings, chosen.name, chosen.version)
    pin = patiently(api.describe, settings.retry_seconds)
    chosen.require(pin)
    log.info(
        "model pinned",
        model=pin.name,
        version=pin.version,
        digest=pin.digest,
        labels=len(pin.labels),
        **({} if pin.head is HeadKind.SOFTMAX else {"head": str(pin.head)}),
    )
    _warn_of_twins(pin)
    _warn_of_formulas(pin)
    asked = settings.model_dump(include=set(RunDescription.model_fields) - {"model", "released"})
    head = head_of(pin, min(settings.top_k, len(pin.labels)))
    asked["review_below"] = review_below(settings.review_below, head)
    asked["top_k"] = head.top_k if head.chooses_labels else 1  # it says nothing about the others
    if settings.class_index and not head.chooses_labels:
        raise ConfigurationError(f"--class-index is for a softmax; the head of {pin.name} is a {pin.head}")
    if settings.pages == "all":
        _require_pages(pin, settings.backend)
    else:
        asked["max_pages"] = 0
    return _anywhere(RunDescription(**asked, code_version=__version__, model=pin, released=chosen.released))


def _require_pages(pin: ModelPin, backend: str) -> None:
    """Refuse to look at every page with a model API that looks at whole files only.

    Raises:
        ConfigurationError: It does.
    """
    if pin.pages:
        return
    if backend in {"torchserve", "local"}:
        remedy = "make the archive again with the handler of this version"
    else:
        remedy = "use --backend torchserve or local, or save each page as a file"
    raise ConfigurationError(
        f"--pages all: {pin.name} {pin.version} behind --backend {backend} takes whole files and cannot be"
        f" told which page is meant; {remedy}"
    )


def _anywhere(description: RunDescription) -> RunDescription:
    """Make paths absolute: the same words in another working folder are another input."""
    roots = ",".join(absolute(root.strip()) for root in description.allowed_roots.split(","))
    paths = {name: absolute(getattr(description, name)) for name in ("input", "manifest")}
    return description.model_copy(update={**paths, "allowed_roots": roots})


def _warn_of_twins(pin: ModelPin) -> None:
    """Tell which names are of several classes: a prediction of one does not say of which."""
    twins = [name for name, classes in Counter(pin.labels).items() if classes > 1]
    if twins:
        log.warning(
            "several classes of the model have one name; --class-index writes which of them is meant",
            names=len(twins),
            first=", ".join(one_line(name, 40) for name in twins[:5]),
        )


def _warn_of_formulas(pin: ModelPin) -> None:
    """Tell which names a spreadsheet would compute."""
    formulas = [label for label in pin.labels if label[:1] in FORMULA_START]
    if formulas:
        log.warning(
            "a spreadsheet takes labels for formulas: import the column as text, or read predictions.parquet",
            labels=", ".join(one_line(label, 40) for label in formulas[:_NAMED]),
        )


def _claim(run: RunFolder, description: RunDescription) -> None:
    """Write run.json, or check that the existing one asks for the same."""
    if run.create(RUN_JSON, _as_json(description)):
        return
    found = read_description(run)
    if found.include in EARLIER_INCLUDES and description.include == DEFAULT_INCLUDE:
        description = description.model_copy(update={"include": found.include})
    if found.max_image_pixels in EARLIER_PIXELS and description.max_image_pixels == MOST_PIXELS:
        description = description.model_copy(update={"max_image_pixels": found.max_image_pixels})
    # What run.json leaves out, such as the engine and options that are off, says nothing about the run.
    before, now = (
        d.model_dump(exclude={"code_version", "left_out"}) for d in (_anywhere(found), description)
    )
    different = [name for name in RunDescription.model_fields if before.get(name) != now.get(name)]
    if different:
        raise RunMismatchError(
            f"run {description.run_id} was started with another {', '.join(different)}; use a new --run-id"
        )


def _other_names(carried: list[str], description: RunDescription) -> list[str]:
    """Return the names of the list's columns, none of which is that of a column of predictions."""
    own = {name.casefold() for name in prediction_schema(description).names}
    twice = [name for name in carried if name.strip().casefold() in own]
    if twice:
        raise DataRefusedError(
            f"the column {one_line(twice[0], 60)} cannot be carried: predictions.csv has one of that name;"
            " rename it, or name the others by --carry"
        )
    return carried


def _as_json(description: RunDescription) -> bytes:
    return (description.model_dump_json(indent=2) + "\n").encode()


def _listing_writer(stream: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True)


def _list_input(
    run: RunFolder,
    description: RunDescription,
    requested: RequestedImages,
    left_out: LeftOutFiles,
    source: ImageSource,
) -> None:
    entries = pages_of_all(requested, source, description.max_pages) if description.paged else requested
    rows = sorted_rows(entries)
    schema = listing_schema(_other_names(requested.carried(), description), paged=description.paged)
    listed = 0
    record = LeftOutRecord(counts={}, names=None)
    try:
        with run.publishing(LISTING, exclusive=True) as stream:
            with _listing_writer(stream, schema) as writer:
                taken = limited(rows, description.limit)
                for shard in shards_of(taken, description.shard_size, schema):
                    writer.write_batch(shard)
                    listed += shard.num_rows
                if not listed:
                    raise _nothing(requested.name, left_out, allowed=requested.may_be_empty)
                for row in rows:
                    left_out.add((row[0], LeftOut.BEYOND_LIMIT.value))
                record = write_left_out(run, left_out.pairs(), uuid.uuid4().hex[:8])
                writer.add_key_value_metadata(left_out_metadata(record))
            _claim(run, description.model_copy(update={"left_out": record.counts}))
    except FileExistsError:
        log.info("another attempt has listed the input meanwhile: its listing is taken")
    log.info("input listed", images=listed, said=account({"listed": listed}, record.counts))


@contextlib.contextmanager
def _readable(run: RunFolder) -> Iterator[None]:
    """Translate what Arrow says of a listing that is damaged."""
    try:
        yield
    except DAMAGED as error:
        raise NotProvenError(f"{run.uri}/{LISTING} is not a readable Parquet file: {error}") from error


def _inspect_all(run: RunFolder, description: RunDescription, source: ImageSource) -> Plan:
    rejected = 0
    with run.reading(LISTING) as stream, _readable(run):
        listing = pq.ParquetFile(stream, page_checksum_verification=True)
        require_columns(listing.schema_arrow, LISTING_SCHEMA, LISTING)
        record = left_out_record(listing)
        left_out = record.counts if record else {}
        _correct(run, left_out)
        listed, shards = listing.metadata.num_rows, listing.num_row_groups
        with Progress("preprocess", listed) as progress:
            for images, rejects in write_manifests(run, listing, source, Inspection.of(description)):
                rejected += rejects
                progress.advance(images, failed=rejects)
    plan = Plan(
        listed=listed, accepted=listed - rejected, rejected=rejected, shards=shards, left_out=left_out
    )
    run.create(PLAN, (plan.model_dump_json(indent=1) + "\n").encode())
    current().metrics.planned(plan, description.model, description.backend)
    return plan


def _correct(run: RunFolder, left_out: LeftOutCounts) -> None:
    """Let run.json count the files that this listing left out, not one that was never published.

    An attempt that ended before its listing was published may have written it, and the input has changed
    since.
    """
    found = RunDescription.model_validate_json(run.read(RUN_JSON))
    if found.left_out != left_out:
        run.write(RUN_JSON, _as_json(found.model_copy(update={"left_out": left_out})))
