"""Prove a finished run again: every digest, every count, and the CSV from the parts that it was made of."""

from __future__ import annotations

from contextlib import ExitStack

from imagebatch.contracts.layout import FAILURES_CSV, PREDICTIONS_CSV
from imagebatch.errors import NotProvenError
from imagebatch.runs import output_csv
from imagebatch.runs.certificate import Audit, Certificate, recorded_certificate
from imagebatch.runs.finished import FinishedRun, open_finished
from imagebatch.runs.folder import open_run
from imagebatch.runs.left_out import counted_again, require_same_table
from imagebatch.runs.proofs import HashedStream
from imagebatch.settings import VerifySettings


def verify(settings: VerifySettings) -> Certificate:
    """Prove a finished run.

    Returns:
        The certificate, made anew and equal to the one in the run.

    Raises:
        ConfigurationError: There is no such run, or it has not finished.
        NotProvenError: A file is not the one that was certified, or the files disagree.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    recorded = recorded_certificate(run)
    with open_finished(run) as finished:
        audit = Audit(finished)
        different = _read_once(finished, audit)
        audit.add_left_out(counted_again(finished.files, finished.left_out))
        certificate = audit.certificate()
        _compare(recorded, certificate)
        require_same_table(finished.files, finished.left_out)
    if different:
        raise NotProvenError(different[0])
    return certificate


def _read_once(finished: FinishedRun, audit: Audit) -> list[str]:
    """Count every shard, and make both CSV files again beside the ones that are there.

    Returns:
        How a CSV file differs from what its parts give. Told only after the digests have been compared: a
        file that was changed since the run was certified is the plainer reason.
    """
    description, carried = finished.description, finished.carried
    schema = output_csv.prediction_schema(description, carried)
    with ExitStack() as stack:
        predicted = _Expected(PREDICTIONS_CSV, stack.enter_context(finished.files.reading(PREDICTIONS_CSV)))
        failed = _Expected(FAILURES_CSV, stack.enter_context(finished.files.reading(FAILURES_CSV)))
        predicted.compare(output_csv.csv_header(schema.names))
        failed.compare(output_csv.csv_header(output_csv.FAILURE_COLUMNS))
        for ledger in finished.ledgers():
            audit.add(ledger)
            predicted.compare(output_csv.csv_lines(output_csv.predictions(ledger, description), len(carried)))
            failed.compare(output_csv.csv_lines(output_csv.failures(ledger)))
        return [text for file in (predicted, failed) if (text := file.difference())]


class _Expected:
    """A file compared, piece by piece, with what it must be."""

    def __init__(self, path: str, stream: HashedStream) -> None:
        self._path = path
        self._stream = stream
        self._same = True

    def compare(self, piece: bytes) -> None:
        self._same = self._stream.read(len(piece)) == piece and self._same

    def difference(self) -> str:
        """Say how the file differs; empty if it does not. Reads what is left of it."""
        more = self._stream.drain()
        if not self._same:
            return f"{self._path} is not what the run's parts give"
        return f"{self._path} has lines that the run's parts do not give" if more else ""


def _compare(recorded: Certificate, found: Certificate) -> None:
    before = {file.path: file for file in recorded.files}
    now = {file.path: file for file in found.files}
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    if changed:
        raise NotProvenError(f"changed since the run was certified: {', '.join(changed[:5])}")
    if recorded != found:
        raise NotProvenError(f"the run's files count {found.counts}, the certificate says {recorded.counts}")
