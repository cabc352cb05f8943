"""Rows in, rows out: read images ahead, pack them, ask the model, keep few requests in flight."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypedDict, TypeVar

import numpy as np

from imagebatch.contracts.ids import decode_id
from imagebatch.contracts.records import Reason, RunDescription
from imagebatch.contracts.rows import AskedRow, ScoreRow
from imagebatch.errors import ConfigurationError, ModelChangedError, one_line
from imagebatch.heads import head_of
from imagebatch.heads.base import NO_ANSWER, Head
from imagebatch.inputs.source import ReadOnce, image_source
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import Answer, Fault, ImagePayload, ModelApi
from imagebatch.model_apis.retry import Patience, patiently
from imagebatch.observe.metrics import Telemetry
from imagebatch.observe.stage import current
from imagebatch.scorer.golden import golden_uri, probe
from imagebatch.scorer.pace import Pace
from imagebatch.scorer.packs import PackScorer
from imagebatch.scorer.projection import project
from imagebatch.settings import ScoringSettings

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")
Keep = Callable[[K, list[ScoreRow]], None]

_REASONS = frozenset(reason.value for reason in Reason)

# Images of the first request; each one after it has twice as many. All threads read at once in the beginning,
# and the server would stand idle until a whole pack is there.
FIRST_PACK = 16

# Images of a request below which the cost of the request itself would show.
SMALLEST_SHARE = 4

# Rows known ahead: so many before the end, packs begin to become smaller.
_TAIL = 1024

# Queue this many packs per thread. A queued pack holds rows only; files are read when a thread takes it.
_AHEAD = 3

# Bytes beyond which a request takes no more images: so many files of any size are held in memory, times the
# requests in flight and read ahead.
LARGEST_PACK = 16 << 20

# Pixels beyond which it takes no more: small files may be large pictures, and there is a time to answer in.
MOST_PIXELS = 400_000_000


class _Endpoint(TypedDict, total=False):
    endpoint: str


class Scorer:
    """Scores rows of a run's manifest with the run's model. Make one with `connect`.

    Args:
        description: run.json.
        settings: How hard to drive the model API.
        api: The model API; not asked here.

    Attributes:
        gives_embeddings: Whether the served model gives embeddings; known from `require_model` on.
        telemetry: What scoring counts.
    """

    def __init__(self, description: RunDescription, settings: ScoringSettings, api: ModelApi) -> None:
        pin = description.model
        self.gives_embeddings = False
        self._head = head_of(pin, description.top_k)
        self._named_twice = len(set(pin.labels)) < len(pin.labels)
        self._description = description
        self._most_in_flight = settings.in_flight
        self._source = image_source(description)
        self._api = api
        self._retry_seconds = settings.retry_seconds
        self.telemetry = Telemetry()
        self._patience = Patience(self._api.ready, settings.retry_seconds, self.telemetry)
        self._pace = Pace(settings.in_flight, settings.pack_size, settings.request_timeout)
        self._packs = PackScorer(
            self._api,
            model=pin,
            top_k=description.top_k,
            pace=self._pace,
            patience=self._patience,
            telemetry=self.telemetry,
        )

    @classmethod
    def connect(cls, description: RunDescription, settings: ScoringSettings) -> Self:
        """Open the run's model API, and make sure that it serves the run's model.

        Args:
            description: run.json.
            settings: Where the model API is and how hard to drive it.

        Raises:
            ModelChangedError: The served model is not the one that the run was started with.
            ModelApiUnavailableError: The model API did not answer.
        """
        pin = description.model
        scorer = cls(
            description, settings, open_backend(description.backend, settings, pin.name, pin.version)
        )
        current().metrics.watch_scoring(scorer.telemetry, scorer.limits, Fault)
        scorer.require_model()
        if golden := golden_uri(settings.golden, pin):
            probe(golden, scorer._packs, pin)
        return scorer

    def require_model(self) -> None:
        """Raise ModelChangedError unless the served model is the run's."""
        pin = self._description.model
        found = patiently(self._api.describe, self._retry_seconds, self.telemetry)
        if found.digest != pin.digest:
            raise ModelChangedError(
                f"{pin.name} {pin.version} is now {found.digest},"
                f" the run was started with {pin.digest}; start a new run"
            )
        if found.declaration != pin.declaration:
            raise ModelChangedError(
                f"{pin.name} {pin.version} is now declared as {found.declaration.model_dump_json()},"
                f" the run was started with {pin.declaration.model_dump_json()}; start a new run"
            )
        if found.labels != pin.labels:  # a model card's are in no digest that a server tells
            raise ModelChangedError(
                f"{pin.name} {pin.version} now has other labels, or in another order, than when the run was"
                " started; start a new run"
            )
        self.gives_embeddings = found.embedding > 0

    def scored(
        self, chunks: Iterable[tuple[K, Sequence[AskedRow]]], keep: Keep[K] | None = None
    ) -> Iterator[tuple[K, list[ScoreRow]]]:
        """Score chunks of rows, each under a key of the caller.

        A row with `embed` true is asked for its embedding too; only where `gives_embeddings`.

        Args:
            chunks: Read as they are needed, in the thread that takes the results.
            keep: Called with each request's rows, from the thread that got them, before another request
                takes its place: what it has kept need never be asked again.

        Yields:
            (key, score rows), in order; a chunk comes in one or more pieces.
        """
        packs = self._packs_of(_knowing_what_follows(chunks))

        def score_pack(item: tuple[K, Sequence[AskedRow]]) -> tuple[K, list[ScoreRow]]:
            key, rows = item
            try:
                return key, self._answered(rows, (lambda kept: keep(key, kept)) if keep else _forget)
            except BaseException as error:
                self._patience.give_up(error)  # the other threads' waiting is in vain
                raise

        return _bounded_map(score_pack, packs, threads=self._most_in_flight + 1)

    def limits(self) -> tuple[int, int]:
        """Tell how many requests may be in flight now, and how many images may be in each."""
        limits = self._pace.limits
        return limits.in_flight, limits.pack_size

    def _packs_of(
        self, chunks: Iterable[tuple[K, Sequence[AskedRow], int]]
    ) -> Iterator[tuple[K, Sequence[AskedRow]]]:
        """Cut chunks into packs of the size that suits the server when each is begun.

        The last rows of all go in ever smaller packs (guided self-scheduling: Polychronopoulos and Kuck,
        1987): with equal ones the workers would wait for the one that was given the last. Each worker has
        about two requests in flight: one that it works on, one that waits.
        """
        ramp, workers = FIRST_PACK, max(min(2, self._most_in_flight), self._most_in_flight // 2)
        for key, rows, following in chunks:
            start = 0
            while start < len(rows):
                share = math.ceil((len(rows) - start + following) / workers)
                size = min(self._pace.limits.pack_size, ramp, max(SMALLEST_SHARE, share))
                pack = _within_limits(rows[start : start + size])
                yield key, pack
                start += len(pack)
                ramp *= 2

    def _answered(self, rows: Sequence[AskedRow], keep: Callable[[list[ScoreRow]], None]) -> list[ScoreRow]:
        digest = self._description.model.digest
        answered: dict[int, ScoreRow] = {}
        images: list[ImagePayload] = []
        positions: list[int] = []
        read = ReadOnce(self._source)  # of a file's pages that follow each other
        for position, row in enumerate(rows):
            try:
                data = self._read(row, read)
            except ImageUnavailableError as refused:
                answer = Answer(reason=refused.reason, detail=refused.detail)
                answered[position] = _score_row(row, answer, digest, self._head)
            else:
                key = f"{position}-{row['sha256'][:16]}"
                page = self._named_page(row)
                name = decode_id(row["image_id"])
                images.append(ImagePayload(key, data, embed=row.get("embed", False), page=page, name=name))
                positions.append(position)
        asked = iter(positions)
        for answers in self._packs.score(images):
            self._require_classes(answers)
            places = list(itertools.islice(asked, len(answers)))
            pairs = zip(places, answers, strict=True)
            piece = [_score_row(rows[at], answer, digest, self._head) for at, answer in pairs]
            keep(piece)
            answered |= zip(places, piece, strict=True)
        return [answered[position] for position in range(len(rows))]

    def _require_classes(self, answers: Sequence[Answer]) -> None:
        """Raise ConfigurationError if class indices are wanted that neither reply nor names tell."""
        if not (self._description.class_index and self._named_twice):
            return
        if any(not answer.reason and not answer.classes for answer in answers):
            raise ConfigurationError(
                f"--class-index: classes of {self._description.model.name} have one name, and its archive"
                " does not tell which it means; make the archive again with the handler of this version"
            )

    def _named_page(self, row: AskedRow) -> int:
        """Return the page to ask about; 0 where it is the model's own, of which nothing need be said."""
        page = row.get("page") or 0
        return 0 if page == self._description.model.seen.page else page

    @staticmethod
    def _read(row: AskedRow, read: ReadOnce) -> bytes:
        data, digest = read(row["uri"])
        if digest != row["sha256"]:
            raise ImageUnavailableError(Reason.CONTENT_CHANGED, "the file is not the one that preprocess saw")
        return data


def _knowing_what_follows(
    chunks: Iterable[tuple[K, Sequence[AskedRow]]],
) -> Iterator[tuple[K, Sequence[AskedRow], int]]:
    """Yield each chunk with the number of rows still to come, looking at most `_TAIL` rows ahead."""
    waiting: deque[tuple[K, Sequence[AskedRow]]] = deque()
    following = 0
    for chunk in chunks:
        waiting.append(chunk)
        following += len(chunk[1])
        while following - len(waiting[0][1]) >= _TAIL:
            key, rows = waiting.popleft()
            following -= len(rows)
            yield key, rows, following
    for key, rows in waiting:
        following -= len(rows)
        yield key, rows, following


def _within_limits(rows: Sequence[AskedRow]) -> Sequence[AskedRow]:
    """Take as many of the rows as the largest pack holds in bytes and in pixels, at least one."""
    sizes = itertools.accumulate(row["size"] for row in rows)
    # To see a frame of an animation, all before it are decoded.
    pixels = itertools.accumulate(
        row.get("width", 0) * row.get("height", 0) * max(1, row.get("page") or 1) for row in rows
    )
    fit = (size <= LARGEST_PACK and seen <= MOST_PIXELS for size, seen in zip(sizes, pixels, strict=True))
    return rows[: max(1, sum(fit))]


def _forget(_: list[ScoreRow]) -> None:
    """Keep nothing."""


def _score_row(row: AskedRow, answer: Answer, digest: str, head: Head) -> ScoreRow:
    """Make a score row of an answer.

    Reasons are a fixed list. One that only the server knows counts as `decode_failed`, and its own word
    stands in the detail.
    """
    reason, detail = answer.reason, answer.detail
    if reason and reason not in _REASONS:
        detail = one_line(f"the model API gives the reason {reason!r}: {detail}", 200)
        reason = Reason.DECODE_FAILED
    endpoint: _Endpoint = {"endpoint": answer.endpoint} if answer.endpoint else {}
    return {
        "image_id": row["image_id"],
        "sha256": row["sha256"],
        "model_digest": digest,
        "reason": str(reason) if reason else None,
        "detail": detail if reason else None,
        "embedding": project(np.frombuffer(answer.embedding, "<f4")) if answer.embedding else None,
        **(NO_ANSWER if reason else head.row(answer)),
        **endpoint,
    }


def _bounded_map(call: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """Yield the calls' results in order, as `Executor.map` does, but stay only a few items ahead.

    A few results are kept ready, because the consumer blocks at the end of a shard while it asks the server
    for its model's digest.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(call, item))
                if len(waiting) >= _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
