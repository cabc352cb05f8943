"""Proves a finished run again: every digest, every count, and the CSV from the parts that it was made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from imagebatch.contracts.layout import FAILURES_CSV, PREDICTIONS_CSV
from imagebatch.errors import NotProvenError
from imagebatch.runs.certificate import Audit, Certificate, recorded_certificate
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.runs.ledger import ShardLedger, ledgers, read_description
from imagebatch.runs.tables import (
    FAILURE_COLUMNS,
    csv_header,
    csv_lines,
    failures,
    prediction_columns,
    predictions,
)
from imagebatch.settings import VerifySettings


def verify(settings: VerifySettings) -> Certificate:
    """Proves a finished run.

    Returns:
        The certificate, made anew and equal to the one in the run.

    Raises:
        ConfigurationError: There is no such run, or it has not finished.
        NotProvenError: A file is not the one that was certified, or the files disagree.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    recorded = recorded_certificate(run)
    description = read_description(run)
    audit = Audit(run, description)
    for ledger in ledgers(run):
        audit.add(ledger)
    certificate = audit.certificate()
    _compare(recorded, certificate)
    _compare_lines(
        run,
        PREDICTIONS_CSV,
        csv_header(prediction_columns(description.top_k)),
        (csv_lines(predictions(ledger, description.top_k, description.model)) for ledger in ledgers(run)),
    )
    _compare_lines(run, FAILURES_CSV, csv_header(FAILURE_COLUMNS), map(_failure_lines, ledgers(run)))
    return certificate


def _failure_lines(ledger: ShardLedger) -> bytes:
    return csv_lines(failures(ledger))


def _compare(recorded: Certificate, found: Certificate) -> None:
    before = {file.path: file for file in recorded.files}
    now = {file.path: file for file in found.files}
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    if changed:
        raise NotProvenError(f"changed since the run was certified: {', '.join(changed[:5])}")
    if recorded != found:
        raise NotProvenError(f"the run's files count {found.counts}, the certificate says {recorded.counts}")


def _compare_lines(run: RunFolder, path: str, header: bytes, pieces: Iterator[bytes]) -> None:
    """Makes the CSV again from the parts and compares it byte by byte."""
    with run.reading(path) as stream:
        for expected in itertools.chain([header], pieces):
            if stream.read(len(expected)) != expected:
                raise NotProvenError(f"{path} is not what the run's parts give")
        if stream.read(1):
            raise NotProvenError(f"{path} has lines that the run's parts do not give")
