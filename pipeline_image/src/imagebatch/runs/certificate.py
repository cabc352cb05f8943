"""The certificate: proof that every listed image was predicted, failed or rejected, each exactly once.

It is made by counting the run's own files, never from counters that a stage kept, and can be made again at
any time.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.layout import (
    CERTIFICATE,
    FAILURES_CSV,
    LISTING,
    PLAN,
    PREDICTIONS_CSV,
    PREDICTIONS_PARQUET,
    RUN_JSON,
    SUCCESS,
    done_path,
    manifest_path,
    redrive_done_path,
    rejects_path,
)
from imagebatch.contracts.records import PROTOCOL_VERSION, ModelPin, RedriveDone, RunDescription
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.ledger import ShardLedger, done_of, listed_count, shard_count
from imagebatch.runs.redrives import finished_redrives

_BLOCK = 1 << 20


class FileProof(BaseModel):
    """A file of the run: path, size in bytes, SHA-256 (hex)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    sha256: str


class Counts(BaseModel):
    """Images of a run; listed = predicted + failed + rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listed: int
    predicted: int
    failed: int
    rejected: int

    @property
    def balanced(self) -> bool:
        """Whether every listed image is accounted for."""
        return self.listed == self.predicted + self.failed + self.rejected


class Certificate(BaseModel):
    """output/certificate.json; `cached` of the predicted images were not asked about in this run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: int
    run_id: str
    model: ModelPin
    counts: Counts
    balanced: bool
    reasons: dict[str, int]
    input_digest: str
    cached: int = 0
    redrives: list[RedriveDone]
    files: list[FileProof]


class Audit:
    """Counts the ledgers of a run, one after the other.

    Args:
        run: The run's files.
        description: Its run.json.
    """

    def __init__(self, run: RunFolder, description: RunDescription) -> None:
        self._run = run
        self._description = description
        self._predicted = self._failed = self._rejected = 0
        self._reasons: Counter[str] = Counter()
        self._digest = hashlib.sha256()

    def add(self, ledger: ShardLedger) -> None:
        """Counts one shard."""
        self._predicted += ledger.predicted.num_rows
        self._failed += ledger.failed.num_rows
        self._rejected += ledger.rejected.num_rows
        for table in (ledger.rejected, ledger.failed):
            self._reasons.update(table["reason"].to_pylist())
        self._digest.update(_input_lines(ledger.manifest))

    def certificate(self) -> Certificate:
        """The certificate of what was added.

        Raises:
            NotProvenError: The counts do not balance.
        """
        counts = Counts(
            listed=listed_count(self._run),
            predicted=self._predicted,
            failed=self._failed,
            rejected=self._rejected,
        )
        if not counts.balanced:
            raise NotProvenError(f"the run does not balance: {counts}")
        return Certificate(
            protocol=PROTOCOL_VERSION,
            run_id=self._description.run_id,
            model=self._description.model,
            counts=counts,
            balanced=counts.balanced,
            reasons=dict(sorted(self._reasons.items())),
            input_digest=f"sha256:{self._digest.hexdigest()}",
            cached=sum(done_of(self._run, shard).cached for shard in range(shard_count(self._run))),
            redrives=finished_redrives(self._run),
            files=[prove(self._run, path) for path in certified_paths(self._run)],
        )


def recorded_certificate(run: RunFolder) -> Certificate:
    """A finished run's certificate, as it was written.

    Raises:
        ConfigurationError: The run has not finished.
        NotProvenError: It is not the certificate that `_SUCCESS` names.
    """
    try:
        data, success = run.read(CERTIFICATE), run.read(SUCCESS)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{run.uri} is not a finished run: it has no {SUCCESS}") from error
    if success != f"{sha256_hex(data)}\n".encode():
        raise NotProvenError(f"{CERTIFICATE} is not the file that {SUCCESS} names: its SHA-256 differs")
    try:
        return Certificate.model_validate_json(data)
    except ValueError as error:
        raise NotProvenError(f"{CERTIFICATE} is not a certificate of this version: {error}") from error


def certified_paths(run: RunFolder) -> list[str]:
    """Every file that a certificate covers, in a fixed order."""
    shards = range(shard_count(run))
    parts = [part.path for shard in shards for part in done_of(run, shard).parts]
    redriven = [
        path
        for redrive in finished_redrives(run)
        for path in (redrive_done_path(redrive.number), redrive.manifest.path, redrive.scores.path)
    ]
    return [
        RUN_JSON,
        LISTING,
        PLAN,
        *(path(shard) for path in (manifest_path, rejects_path, done_path) for shard in shards),
        *parts,
        *redriven,
        PREDICTIONS_CSV,
        PREDICTIONS_PARQUET,
        FAILURES_CSV,
    ]


def prove(run: RunFolder, path: str) -> FileProof:
    """Size and digest of a file, read piece by piece."""
    digest, size = hashlib.sha256(), 0
    try:
        with run.reading(path) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except FileNotFoundError as error:
        raise NotProvenError(f"{run.uri}/{path} is missing") from error
    return FileProof(path=path, size=size, sha256=digest.hexdigest())


def _input_lines(manifest: pa.Table) -> bytes:
    pairs = zip(manifest["image_id"].to_pylist(), manifest["sha256"].to_pylist(), strict=True)
    return "".join(f"{image_id}\t{sha256 or '-'}\n" for image_id, sha256 in pairs).encode()
