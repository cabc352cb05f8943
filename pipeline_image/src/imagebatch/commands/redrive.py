"""Score only the images of a finished run that have no prediction, and merge them into the same run.

A level above the stages, as `run` is: it ends with postprocess, which writes the outputs and a new
certificate, and with a report of the run as it is now.
"""

from __future__ import annotations

import uuid

import pyarrow as pa

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.layout import CERTIFICATE, redrive_done_path, redrive_folder
from imagebatch.contracts.records import DonePart, RedriveDone, RunDescription
from imagebatch.contracts.rows import (
    SCORES_SCHEMA,
    AskedRow,
    ListedRow,
    ManifestRow,
    ScoreRow,
    manifest_schema,
)
from imagebatch.errors import NothingToDoError, RunHeldError
from imagebatch.inputs.header import Inspection, inspect
from imagebatch.inputs.source import ReadOnce, image_source
from imagebatch.log import get_logger
from imagebatch.observe.progress import Progress
from imagebatch.observe.stage import observed
from imagebatch.runs.at_work import at_work
from imagebatch.runs.certificate import Certificate, recorded_certificate
from imagebatch.runs.description import read_description
from imagebatch.runs.finished import open_finished
from imagebatch.runs.folder import RunFolder, open_run, parquet_bytes
from imagebatch.runs.redrives import finished_redrives
from imagebatch.scorer.scorer import Scorer
from imagebatch.settings import PostprocessSettings, RedriveSettings, ReportSettings
from imagebatch.stages.postprocess import postprocess
from imagebatch.stages.report import report_if_possible

log = get_logger()


@observed("redrive", recorded=False)
def redrive(settings: RedriveSettings) -> Certificate:
    """Redrive a finished run.

    Files that were rejected are inspected again, and a file that has been repaired is taken as it is now.
    If a redrive was interrupted after its rows counted, doing it again first writes the outputs that it
    left undone.

    Raises:
        NothingToDoError: Every image has a prediction, or none has one of the reasons asked for.
        RunHeldError: Another redrive has finished meanwhile, or the run is being pruned.
        ConfigurationError: The run has not finished, or its model is not served any more.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    description = read_description(run)
    with at_work(run):
        return _redriven(run, description, settings)


def _redriven(run: RunFolder, description: RunDescription, settings: RedriveSettings) -> Certificate:
    outputs = settings.part(PostprocessSettings)
    done = finished_redrives(run)
    certificate = recorded_certificate(run) if not done else _up_to_date(run, len(done), outputs)
    reasons = {reason.strip() for reason in settings.reasons.split(",") if reason.strip()}
    targets = _without_prediction(run, reasons)
    if not targets:
        raise NothingToDoError(f"run {settings.run_id} has no image to redrive; see {run.uri}/{CERTIFICATE}")
    manifest = _inspected(targets, description)
    scores = _scored(manifest, description, settings)
    columns = manifest_schema(paged=description.paged)
    _record(run, len(certificate.redrives) + 1, pa.Table.from_pylist(manifest, columns), scores)
    certificate = postprocess(outputs)
    report_if_possible(settings.part(ReportSettings))
    return certificate


def _up_to_date(run: RunFolder, redrives: int, outputs: PostprocessSettings) -> Certificate:
    try:
        certificate = recorded_certificate(run)
    except Exception:  # noqa: BLE001 (whatever is wrong with the outputs, they are made again from the parts)
        return postprocess(outputs)
    return certificate if len(certificate.redrives) == redrives else postprocess(outputs)


def _without_prediction(run: RunFolder, reasons: set[str]) -> list[ListedRow]:
    found: list[ListedRow] = []
    with open_finished(run) as finished:
        for ledger in finished.ledgers():
            listed = ledger.manifest.select(
                [name for name in ListedRow.__annotations__ if name in ledger.manifest.column_names]
            )
            images: dict[str, ListedRow] = {row["image_id"]: row for row in listed.to_pylist()}
            for table in (ledger.rejected, ledger.failed):
                found += [
                    images[row["image_id"]]
                    for row in table.select(["image_id", "reason"]).to_pylist()
                    if not reasons or row["reason"] in reasons
                ]
    return sorted(found, key=lambda row: str(row["image_id"]))


def _inspected(targets: list[ListedRow], description: RunDescription) -> list[ManifestRow]:
    read, asked = ReadOnce(image_source(description)), Inspection.of(description)
    return [inspect(row, read, asked) for row in targets]


def _scored(
    manifest: list[ManifestRow], description: RunDescription, settings: RedriveSettings
) -> list[ScoreRow]:
    accepted = [_asked(row) for row in manifest if "reason" not in row]
    rows: list[ScoreRow] = []
    if accepted:
        scorer = Scorer.connect(description, settings)
        with Progress("redrive", len(accepted), settings.deadline) as progress:
            for _, piece in scorer.scored([(0, accepted)]):
                rows += piece
                progress.advance(len(piece), failed=sum(row["reason"] is not None for row in piece))
    return rows


def _asked(row: ManifestRow) -> AskedRow:
    asked = AskedRow(
        image_id=row["image_id"],
        uri=row["uri"],
        size=row["size"],
        sha256=row["sha256"],
        width=row["width"],
        height=row["height"],
    )
    return {**asked, "page": row["page"]} if "page" in row else asked


def _record(run: RunFolder, number: int, manifest: pa.Table, scores: list[ScoreRow]) -> None:
    attempt = uuid.uuid4().hex[:8]
    previous = run.read(CERTIFICATE)
    run.write(f"{redrive_folder(number)}/previous-certificate.json", previous)
    done = RedriveDone(
        number=number,
        previous_certificate=sha256_hex(previous),
        redriven=manifest.num_rows,
        recovered=sum(row["reason"] is None for row in scores),
        manifest=_part(run, number, f"manifest-{attempt}", manifest),
        scores=_part(run, number, f"scores-{attempt}", pa.Table.from_pylist(scores, SCORES_SCHEMA)),
    )
    if not run.create(redrive_done_path(number), (done.model_dump_json(indent=1) + "\n").encode()):
        raise RunHeldError(
            f"another redrive of this run has finished as number {number}; look at its outcome first"
        )
    log.info("redrive recorded", number=number, redriven=done.redriven, recovered=done.recovered)


def _part(run: RunFolder, number: int, name: str, table: pa.Table) -> DonePart:
    data = parquet_bytes(table)
    path = f"{redrive_folder(number)}/{name}.parquet"
    run.write(path, data)
    return DonePart(path=path, sha256=sha256_hex(data), rows=table.num_rows)
