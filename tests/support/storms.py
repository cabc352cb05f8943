"""Storms: what a model server does to a run's requests, and what interrupts its stages.

A storm is reproducible: a fault belongs to an image and to how often a request has held that image, not to
the order in which threads get to run; a process is killed at a numbered change of the run's folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.support.model_server import Wrong

GOOD = 12  # images that a calm run predicts
SERVER_ERROR = b'{"code": 500, "type": "InternalServerException", "message": "Worker died."}'
BUSY = b'{"code": 503, "type": "ServiceUnavailableException", "message": "no worker is free"}'
RAISED = b'{"code": 503, "type": "InternalServerException", "message": "Prediction failed"}'
NO_KEY = b'{"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}'

# Asked to come back later: any number of these is borne without blaming an image.
LATER: dict[str, Wrong] = {
    "429": Wrong(429, BUSY, {"Retry-After": "0.01"}),
    "503": Wrong(503, BUSY),
    "503, come back soon": Wrong(503, BUSY, {"Retry-After": "soon"}),
    "503, come back never": Wrong(503, BUSY, {"Retry-After": "nan"}),
    "507": Wrong(507, b'{"code": 507, "type": "InternalServerException"}', {"Retry-After": "0"}),
}
# The images may be to blame: three of these on one image alone, and it is quarantined.
SUSPICIOUS: dict[str, Wrong] = {
    "500": Wrong(500, SERVER_ERROR),
    "503 of a handler that raised": Wrong(503, RAISED),
    "400": Wrong(400, b'{"code": 400, "type": "BadRequestException"}'),
    "HTML": Wrong(200, b"<html><body>502 Bad Gateway</body></html>"),
    "empty": Wrong(200, b""),
    "redirect": Wrong(307, b"", {"Location": "http://127.0.0.1:9/"}),
    "not gzip": Wrong(200, b"{}", {"Content-Encoding": "gzip"}),
}
BROKEN_CONNECTION = ("hang up", "truncated", "reset")
TAMPERED = (
    "one too few",
    "one too many",
    "doubled",
    "shuffled",
    "another request's",
    "NaN",
    "above one",
    "rising",
    "fewer labels",
    "unknown label",
    "no answer",
    "blank reason",
)
STALLS = ("stalled",)
PASSING = (*LATER, *SUSPICIOUS, *BROKEN_CONNECTION, *TAMPERED)
REFUSALS = ("another model", "no key", "away", "superseded", "broken model")
POISON = ("500", "503 of a handler that raised", "HTML", "hang up", "one too few", "413")


@dataclass(frozen=True)
class Interruption:
    """What stops a stage once: its kind, and at which request or change of the run's folder."""

    kind: str
    at: int
    stage: str = "score"


@dataclass(frozen=True)
class Storm:
    """One storm.

    Attributes:
        shard_size: Images per shard.
        pack_size: Images per request at most.
        in_flight: Requests at once at most.
        passing: By image, the faults of the first requests that hold it.
        poison: By image, the fault of every request that holds it, until the redrive.
        interruption: What stops a stage, if anything does.
        largest: Images in a request above which the server answers 413.
        allowed: `--max-failures`.
    """

    shard_size: int = 7
    pack_size: int = 5
    in_flight: int = 2
    passing: dict[int, list[str]] = field(default_factory=dict)
    poison: dict[int, str] = field(default_factory=dict)
    interruption: Interruption | None = None
    largest: int = 100
    allowed: str = "100%"


def interruptions() -> st.SearchStrategy[Interruption]:
    """A refusal at a request of scoring, or a death at a change that any stage makes."""
    refused = st.builds(
        Interruption,
        st.sampled_from(REFUSALS),
        st.integers(1, 8),
    )
    killed = st.builds(
        Interruption,
        st.just("killed"),
        st.integers(1, 30),
        st.sampled_from(["preprocess", "score", "score", "postprocess", "redrive"]),
    )
    return refused | killed


def passing_faults() -> st.SearchStrategy[list[str]]:
    """Faults of one image's requests: any number of "later", two for which it could be blamed."""
    blamed = st.sampled_from([name for name in PASSING if name not in LATER])
    later = st.sampled_from(list(LATER))
    mixed = st.tuples(st.lists(blamed, max_size=2), st.lists(later, max_size=3))
    rare = st.sampled_from([*[[]] * 19, list(STALLS)])
    return st.builds(lambda both, stalls: [*both[0], *both[1]][:4] or stalls, mixed, rare)


def storms() -> st.SearchStrategy[Storm]:
    """Anything that a run must survive."""
    images = st.integers(0, GOOD - 1)
    return st.builds(
        Storm,
        shard_size=st.sampled_from([7, 20]),
        pack_size=st.sampled_from([1, 2, 3, 5, 16]),
        in_flight=st.sampled_from([1, 2, 4]),
        passing=st.dictionaries(images, passing_faults(), max_size=6),
        poison=st.dictionaries(images, st.sampled_from(POISON), max_size=2),
        interruption=st.none() | interruptions(),
        largest=st.sampled_from([1, 2, 4, 100, 100, 100]),
        allowed=st.sampled_from(["100%", "100%", "100%", "3"]),
    )
