"""Last stage: predictions.csv, predictions.parquet, failures.csv, the certificate, and `_SUCCESS`."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import IO, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.layout import (
    CERTIFICATE,
    EMBEDDINGS,
    FAILURES_CSV,
    LEFT_OUT_CSV,
    PREDICTIONS_CSV,
    PREDICTIONS_PARQUET,
    REPORT,
    SUCCESS,
    redrive_done_path,
)
from imagebatch.contracts.records import LeftOutCounts
from imagebatch.contracts.rows import EMBEDDINGS_SCHEMA
from imagebatch.errors import RunHeldError
from imagebatch.log import get_logger
from imagebatch.observe.metrics import RUN_REVIEW
from imagebatch.observe.progress import Progress
from imagebatch.observe.stage import current, observed
from imagebatch.runs import output_csv
from imagebatch.runs.certificate import Audit, Certificate
from imagebatch.runs.finished import FinishedRun, open_finished
from imagebatch.runs.folder import open_run, parquet_bytes
from imagebatch.runs.left_out import counted_again
from imagebatch.settings import PostprocessSettings

log = get_logger()

# A row group for each shard would make the footer, and the memory to write it, grow with their number.
ROW_GROUP_ROWS = 10_000


@observed("postprocess")
def postprocess(settings: PostprocessSettings) -> Certificate:
    """Write a run's outputs. The same run gives the same bytes, so that doing it again changes nothing.

    Raises:
        ConfigurationError: A stage before this one has not finished.
        NotProvenError: The run's files disagree about its images.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    with open_finished(run) as finished:
        if finished.redrives:
            run.remove(SUCCESS)  # the outputs are about to change; a run without it is not finished
            run.remove(REPORT)  # it shows what was before
        audit = Audit(finished)
        doubtful = _write_tables(finished, audit)
        audit.add_left_out(_write_left_out(finished))
        certificate = audit.certificate()
    data = (certificate.model_dump_json(indent=1) + "\n").encode()
    run.write(CERTIFICATE, data)
    run.write(SUCCESS, f"{sha256_hex(data)}\n".encode())
    current().metrics.show(RUN_REVIEW, doubtful or 0)  # 0 also takes back what a run before has shown
    marked = {} if doubtful is None else {"review": doubtful}
    current().metrics.certified(certificate.counts.model_dump(), certificate.reasons, certificate.left_out)
    log.info(
        "run certified",
        **certificate.counts.model_dump(),
        **marked,
        said=certificate.account,
        predictions=f"{run.uri}/{PREDICTIONS_CSV}",
    )
    return certificate


def _write_left_out(finished: FinishedRun) -> LeftOutCounts:
    if finished.left_out is None or finished.left_out.names is None:
        return {}
    with finished.files.run.publishing(LEFT_OUT_CSV) as stream:
        return counted_again(finished.files, finished.left_out, stream)


def _write_tables(finished: FinishedRun, audit: Audit) -> int | None:
    """Write the tables; return how many predictions are marked for a person, None if none can be."""
    doubtful = None if finished.description.review_below is None else 0
    run, description = finished.files.run, finished.description
    schema = output_csv.prediction_schema(description, finished.carried)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress("postprocess", finished.listed))
        csv = stack.enter_context(run.publishing(PREDICTIONS_CSV))
        failed = stack.enter_context(run.publishing(FAILURES_CSV))
        parquet = stack.enter_context(run.publishing(PREDICTIONS_PARQUET))
        csv.write(output_csv.csv_header(schema.names))
        failed.write(output_csv.csv_header(output_csv.FAILURE_COLUMNS))
        rows = stack.enter_context(_RowGroups(parquet, schema))
        embeddings = [EMBEDDINGS_SCHEMA.empty_table()]
        for ledger in finished.ledgers():
            table = output_csv.predictions(ledger, description)
            rows.add(table)
            if doubtful is not None:
                doubtful += pc.sum(table[output_csv.REVIEW]).as_py() or 0
            csv.write(output_csv.csv_lines(table, len(finished.carried)))
            unpredicted = output_csv.failures(ledger)
            failed.write(output_csv.csv_lines(unpredicted))
            audit.add(ledger)
            embedded = ledger.predicted.filter(pc.is_valid(ledger.predicted["embedding"]))
            embeddings.append(embedded.select(EMBEDDINGS_SCHEMA.names))
            progress.advance(ledger.manifest.num_rows, failed=unpredicted.num_rows)
        if run.exists(redrive_done_path(len(finished.redrives) + 1)):
            raise RunHeldError("a redrive of this run has finished meanwhile; it writes the outputs")
        if any(table.num_rows for table in embeddings):
            run.write(EMBEDDINGS, parquet_bytes(pa.concat_tables(embeddings)))
    return doubtful


class _RowGroups:
    """Writes tables of any size as row groups of ROW_GROUP_ROWS: the same file whatever the shards' size."""

    def __init__(self, stream: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(stream, schema, compression="zstd")
        self._waiting = schema.empty_table()

    def add(self, table: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= ROW_GROUP_ROWS:
            self._write(ROW_GROUP_ROWS)

    def _write(self, rows: int) -> None:
        self._writer.write_table(self._waiting.slice(0, rows).combine_chunks())
        self._waiting = self._waiting.slice(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._waiting.num_rows:
            self._write(self._waiting.num_rows)
        self._writer.close()
