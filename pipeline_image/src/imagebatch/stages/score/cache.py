"""Predictions kept from run to run, so that an unchanged image costs a look-up: `--cache`, off by default.

One SQLite file for each model digest, number of labels asked for, class names and declared head. The digest
covers every file of the archive, the pixel function among them, and images are found by the SHA-256 of their
files, and by the page where it is not the model's own, so that a hit is what the model would answer. A file
may be deleted at any time. An entry that is not whole or cannot be an answer counts as missing; a file that
is damaged is put aside and begun again, and one that cannot be used costs the cache, never the run.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import ModelPin
from imagebatch.contracts.rows import AskedRow, ScoreRow
from imagebatch.heads import head_of
from imagebatch.heads.softmax import Softmax
from imagebatch.log import get_logger

log = get_logger()

_VERSION = 1
_NO_PAGES: Mapping[str, int] = {}
_LOCKED_SECONDS = 10.0


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    labels: list[str] | None = None
    probabilities: list[float] | None = None
    embedding: list[float] | None = None
    classes: list[int] | None = None
    score: float | None = None


class PredictionCache:
    """The predictions of one model. For one thread; several processes may share a file.

    Args:
        folder: On a local disk; made if there is none.
        model: The model that all predictions are of.
        top_k: Labels per prediction.
    """

    def __init__(self, folder: Path, model: ModelPin, top_k: int) -> None:
        self._model = model
        self._head = head_of(model, top_k)
        self._need_classes = isinstance(self._head, Softmax) and self._head.need_classes
        name = hashlib.sha256(f"{_VERSION} {model.digest} {top_k} {_declared(model)}".encode()).hexdigest()
        self._path = folder / f"{name}.sqlite"
        self._database: sqlite3.Connection | None = None
        self._replaced = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as error:
            self._replace(error)

    def find(self, rows: Sequence[AskedRow]) -> list[ScoreRow]:
        """Return the score rows of those images that are known.

        Args:
            rows: At most a part of them, so that one query does. With `embed` true, a prediction that was
                kept without its embedding counts as unknown.
        """
        if self._database is None or not rows:
            return []
        keys = [self._key(row["sha256"], row.get("page")) for row in rows]
        marks = ",".join("?" * len(keys))
        query = f"SELECT sha256, answer, checksum FROM predictions WHERE sha256 IN ({marks})"  # noqa: S608 (marks)
        try:
            found = self._database.execute(query, keys).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._replace(error)
            return []
        entries = {key: entry for key, *kept in found if (entry := self._entry(key, *kept))}
        known = [(row, entry) for row, key in zip(rows, keys, strict=True) if (entry := entries.get(key))]
        return [self._row(row, entry) for row, entry in known if entry.embedding or not row.get("embed")]

    def add(self, rows: Sequence[ScoreRow], pages: Mapping[str, int] = _NO_PAGES) -> None:
        """Keep the predictions among score rows; what failed may not fail the next time.

        Args:
            rows: Of a part.
            pages: The page that each is of, by image id; of others the model's own.
        """
        if self._database is None:
            return
        answers = [
            (self._key(row["sha256"], pages.get(row["image_id"])), _answer_of(row))
            for row in rows
            if not row["reason"]
        ]
        kept = [(key, answer, _checksum(key, answer)) for key, answer in answers]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO predictions VALUES (?, ?, ?)", kept)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._replace(error)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _key(self, digest: str, page: int | None) -> str:
        """Return what an image's prediction is kept under."""
        return digest if page in {None, self._model.seen.page} else f"{digest}#page={page}"

    def _entry(self, digest: object, answer: object, checksum: object) -> _Entry | None:
        """Return an entry that this module wrote for this image and the model can have given, or None."""
        if not (
            isinstance(digest, str) and isinstance(answer, str) and checksum == _checksum(digest, answer)
        ):
            return None
        try:
            entry = _Entry.model_validate_json(answer)
        except ValidationError:
            return None
        if self._need_classes and entry.classes is None:  # kept by a version that did not keep them
            return None
        return None if self._head.problem(entry.model_dump()) else entry

    def _row(self, row: AskedRow, entry: _Entry) -> ScoreRow:
        return {
            "image_id": row["image_id"],
            "sha256": row["sha256"],
            "model_digest": self._model.digest,
            "labels": entry.labels,
            "probabilities": entry.probabilities,
            "reason": None,
            "detail": None,
            "embedding": entry.embedding if row.get("embed") else None,
            "classes": entry.classes,
            "score": entry.score,
        }

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, timeout=_LOCKED_SECONDS, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS predictions"
            " (sha256 TEXT PRIMARY KEY, answer TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID"
        )

    def _replace(self, error: Exception) -> None:
        """Put a damaged file aside and begin a new one, once; do without the cache if that is no remedy.

        Another process that has the file open goes on with the one that was put aside.
        """
        if self._replaced or not _is_damage(error):
            self._give_up(error)
            return
        self._replaced = True
        self.close()
        aside = self._path.with_suffix(".damaged")
        try:
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as failure:
            self._give_up(failure)
        else:
            log.warning("the cache was damaged: it is begun again", put_aside=str(aside), reason=str(error))

    def _give_up(self, error: Exception) -> None:
        log.warning("the cache is not used", file=str(self._path), reason=str(error))
        self.close()


def _is_damage(error: Exception) -> bool:
    """Tell damage from a file that is locked, a disk that is full, a folder that cannot be written."""
    code = getattr(error, "sqlite_errorcode", None)
    damaged = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    return isinstance(error, UnicodeDecodeError) or (code is not None and code & 0xFF in damaged)


def _answer_of(row: ScoreRow) -> str:
    """Write what `_Entry` reads; what a row does not have is left out."""
    names = ("labels", "probabilities", "embedding", "classes", "score")
    return json.dumps({name: value for name in names if (value := row.get(name)) is not None})


def _declared(model: ModelPin) -> str:
    """Tell apart what a model card declares: class names and heads are not in a server's digest."""
    return json.dumps([model.labels, model.declaration.model_dump(mode="json")])


def _checksum(digest: str, answer: str) -> str:
    return sha256_hex(f"{digest} {answer}".encode())
