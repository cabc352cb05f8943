"""The certificate: proof that every listed image was predicted, failed or rejected, each exactly once.

It also counts the files of the input that were not listed, and proves the table that names them.

It is made by counting the run's own files, never from counters that a stage kept, and can be made again at
any time.
"""

from __future__ import annotations

import hashlib
import operator
from collections import Counter

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from imagebatch.contracts.account import account
from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.layout import CERTIFICATE, SUCCESS
from imagebatch.contracts.records import PROTOCOL_VERSION, LeftOutCounts, ModelPin, RedriveDone
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.runs.finished import FinishedRun
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.ledger import ShardLedger
from imagebatch.runs.proofs import FileProof


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
    """output/certificate.json.

    `cached` of the predicted images were not asked about in this run. `endpoints` counts the images that each
    of several endpoints has answered, where that is known. `left_out` counts the files of the input that are
    not among the listed ones, by reason and suffix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: int
    run_id: str
    model: ModelPin
    counts: Counts
    balanced: bool
    reasons: dict[str, int]
    left_out: LeftOutCounts = {}
    input_digest: str
    cached: int = 0
    endpoints: dict[str, int] = Field(default={}, exclude_if=operator.not_)
    redrives: list[RedriveDone]
    files: list[FileProof]

    @property
    def outcomes(self) -> dict[str, int]:
        """Listed images by what became of them."""
        return self.counts.model_dump(exclude={"listed"})

    @property
    def account(self) -> str:
        """One sentence about every file of the input: `24 files: 2 predicted, 22 left out: 6 HEIC, …`."""
        return account(self.outcomes, self.left_out)


class Audit:
    """Count of the ledgers of a run, one after the other.

    Args:
        finished: The run.
    """

    def __init__(self, finished: FinishedRun) -> None:
        self._finished = finished
        self._predicted = self._failed = self._rejected = 0
        self._reasons: Counter[str] = Counter()
        self._left_out: LeftOutCounts = {}
        self._digest = hashlib.sha256()

    def add(self, ledger: ShardLedger) -> None:
        """Count one shard."""
        self._predicted += ledger.predicted.num_rows
        self._failed += ledger.failed.num_rows
        self._rejected += ledger.rejected.num_rows
        for table in (ledger.rejected, ledger.failed):
            self._reasons.update(table["reason"].to_pylist())
        self._digest.update(_input_lines(ledger.manifest))

    def add_left_out(self, counts: LeftOutCounts) -> None:
        """Take the counts of the files that were not listed, made from their table."""
        self._left_out = counts

    def certificate(self) -> Certificate:
        """Make the certificate of what was added.

        Raises:
            NotProvenError: The counts do not balance.
        """
        counts = Counts(
            listed=self._finished.listed,
            predicted=self._predicted,
            failed=self._failed,
            rejected=self._rejected,
        )
        if not counts.balanced:
            raise NotProvenError(f"the run does not balance: {counts}")
        files = self._finished.files
        return Certificate(
            protocol=PROTOCOL_VERSION,
            run_id=self._finished.description.run_id,
            model=self._finished.description.model,
            counts=counts,
            balanced=counts.balanced,
            reasons=dict(sorted(self._reasons.items())),
            left_out=self._left_out,
            input_digest=f"sha256:{self._digest.hexdigest()}",
            cached=self._finished.cached,
            endpoints=self._finished.endpoints,
            redrives=self._finished.redrives,
            files=[files.proof(path) for path in self._finished.certified_paths()],
        )


def recorded_certificate(run: RunFolder) -> Certificate:
    """Read a finished run's certificate, as it was written.

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


def _input_lines(manifest: pa.Table) -> bytes:
    pairs = zip(manifest["image_id"].to_pylist(), manifest["sha256"].to_pylist(), strict=True)
    return "".join(f"{image_id}\t{sha256 or '-'}\n" for image_id, sha256 in pairs).encode()
