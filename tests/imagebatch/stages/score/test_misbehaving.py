"""Whatever a server does and wherever a process dies: the calm run's bytes, or a clean refusal.

An example is reproducible: a fault belongs to an image and to how often a request has held that image, not to
the order in which threads get to run; a process is killed at a numbered change of the run's folder.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from imagebatch import cli
from imagebatch.contracts.rows import SCORES_SCHEMA
from imagebatch.errors import ExitCode, RunHeldError
from imagebatch.model_apis import retry
from imagebatch.model_apis.torchserve import keys
from imagebatch.runs.folder import open_run
from imagebatch.stages.score import shard
from imagebatch.stages.score.attempts import Attempt

from tests.support.images import jpeg
from tests.support.model_server import DIGEST, Images, ModelServer, Wrong, answer_to, send

EXAMPLES = 500
GOOD = 12
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
POISON = ("500", "503 of a handler that raised", "HTML", "hang up", "one too few", "413")


@dataclass(frozen=True)
class Interruption:
    """What stops a stage once: its kind, and at which request or change of the run's folder."""

    kind: str
    at: int
    stage: str = "score"


@dataclass(frozen=True)
class Storm:
    """One example.

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

    shard_size: int
    pack_size: int
    in_flight: int
    passing: dict[int, list[str]]
    poison: dict[int, str]
    interruption: Interruption | None
    largest: int
    allowed: str


def interruptions() -> st.SearchStrategy[Interruption]:
    """A refusal at a request of scoring, or a death at a change that any stage makes."""
    refused = st.builds(
        Interruption,
        st.sampled_from(["another model", "no key", "away", "superseded", "broken model"]),
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


class Moody(ModelServer):
    """A server that does to each request what the example says."""

    def __init__(self, images: list[bytes]) -> None:
        self.storm: Storm | None = None
        self.away = self.broken = False
        self.on_request = lambda _number: None
        self._index = {data: number for number, data in enumerate(images)}
        self._asked: Counter[int] = Counter()
        self._counting = threading.Lock()
        super().__init__()
        self.faults = self._fault

    def begin(self, storm: Storm | None) -> None:
        """Forgets the example before, and starts another; None is calm."""
        self.storm, self.requests, self.on_request = storm, 0, lambda _number: None
        self._asked.clear()
        self.relent()

    def relent(self) -> None:
        """Ends what an interruption began."""
        self.away = self.broken = False
        self.key, self.digest = "", DIGEST

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        describe = request.headers["Content-Type"] == "application/json"
        if self.away or (self.broken and describe):
            request.rfile.read(int(request.headers["Content-Length"]))
            return send(request, Wrong(503, BUSY) if self.away else Wrong(200, b"{}"))
        return super().answer(request)

    def _fault(self, number: int, images: Images) -> Wrong | None:
        self.on_request(number)
        storm = self.storm
        if storm is None:
            return None
        if len(images) > storm.largest:
            return Wrong(413)
        held = sorted(self._index[data] for _, data in images if data in self._index)
        with self._counting:
            names = [self._of_image(storm, image) for image in held]
        name = next((name for name in names if name), "")
        return self._wrong(name, images) if name else None

    def _of_image(self, storm: Storm, image: int) -> str:
        count = self._asked[image]
        self._asked[image] += 1
        if image in storm.poison:
            return storm.poison[image]
        faults = storm.passing.get(image, [])
        return faults[count] if count < len(faults) else ""

    def _wrong(self, name: str, images: Images) -> Wrong:
        fixed = LATER.get(name) or SUSPICIOUS.get(name)
        if fixed:
            return fixed
        entries = [{"id": key, **answer_to(data, 4)} for key, data in images]
        whole = self._reply(entries)
        others: dict[str, Wrong] = {
            "413": Wrong(413),
            "hang up": Wrong(hang_up=True),
            "truncated": Wrong(body=whole, half=True),
            "reset": Wrong(body=whole, reset=True),
            "stalled": Wrong(body=whole, pause=1.5),
        }
        return others.get(name) or Wrong(body=self._reply(tampered(name, entries)))

    def _reply(self, entries: list[dict[str, Any]]) -> bytes:
        return json.dumps({"model": self.description()["model"], "images": entries}).encode()


def tampered(name: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers that must not be believed."""
    first, rest = dict(entries[0]), entries[1:]
    changes: dict[str, Any] = {
        "NaN": {"probabilities": [float("nan")] * 4},
        "above one": {"probabilities": [1.5, 0.5, 0.25, 0.125]},
        "rising": {"probabilities": [0.1, 0.2, 0.3, 0.4]},
        "fewer labels": {"labels": first.get("labels", [])[:1], "probabilities": [0.5]},
        "unknown label": {"labels": ["a", "b", "c", "d"]},
        "no answer": {"labels": [], "probabilities": []},
        "blank reason": {"error": {"reason": "", "detail": ""}},
        "another request's": {"id": "99-0123456789abcdef"},
    }
    match name:
        case "one too few":
            return rest
        case "one too many":
            return [*entries, {**first, "id": "more"}]
        case "doubled":
            return [first, first, *rest[1:]] if rest else [first, first]
        case "shuffled":
            return [*rest, first] if rest else []
    return [{key: value for key, value in first.items() if key != "error"} | changes[name], *rest]


class Ground:
    """What the examples share: images, the calm run's lines, the server, a folder for runs."""

    def __init__(self, server: Moody, images: Path, names: list[str], runs: Path) -> None:
        self.server = server
        self.images = images
        self.names = names
        self.runs = runs
        self.header = ""
        self.lines: dict[str, str] = {}
        self.count = 0

    def expected(self, without: set[str]) -> bytes:
        """The calm run's CSV without some images' lines."""
        return "".join(
            [self.header, *(line for name, line in self.lines.items() if name not in without)]
        ).encode()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Twelve good images, one that the handler refuses, one that preprocess rejects, and their calm run."""
    memory = Path("/dev/shm")  # noqa: S108 (thousands of flushes to a disk would take most of the time)
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        images = Path(folder, "images")
        images.mkdir()
        names = [f"{seed:02}.jpg" for seed in range(GOOD)]
        for seed, name in enumerate(names):
            (images / name).write_bytes(jpeg(seed, (8, 8)))
        (images / "broken.jpg").write_bytes(jpeg(98, (8, 8)) + b"BROKEN")
        (images / "empty.jpg").write_bytes(b"")
        server = Moody([(images / name).read_bytes() for name in names])
        # The pauses' lengths are not what is tested here: scaled down, 500 examples take a minute.
        patch.setattr(retry, "FIRST_PAUSE", 0.001)
        patch.setattr(retry, "LONGEST_PAUSE", 0.01)
        patch.setattr(keys, "_READ_PAUSE", 0.001)
        # Parts small enough that fourteen images make several.
        patch.setattr(shard, "PART_ROWS", 5)
        patch.setenv("IMAGEBATCH_API_URL", server.url)
        patch.setenv("IMAGEBATCH_MANAGEMENT_URL", server.url)
        patch.setenv("IMAGEBATCH_RUNS_URI", f"{folder}/runs")
        patch.setenv("IMAGEBATCH_LOG_LEVEL", "error")
        ground = Ground(server, images, names, Path(folder, "runs"))
        calm(ground)
        yield ground
        server.close()


def calm(ground: Ground) -> None:
    """The undisturbed run that all examples are compared with."""
    ground.server.begin(None)
    for command in ("preprocess", "score", "postprocess"):
        flags = ("--input", str(ground.images), "--max-failures", "100%") if command == "preprocess" else ()
        assert call(command, "--run-id", "calm", *flags) == (0, "")
    ground.header, *lines = (
        (ground.runs / "calm/output/predictions.csv").read_bytes().decode().splitlines(keepends=True)
    )
    ground.lines = {line.partition(",")[0]: line for line in lines}
    assert list(ground.lines) == ground.names


def call(*arguments: str) -> tuple[int, str]:
    """Calls a command in this process; its exit code and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.call(arguments)
    return code, err.getvalue()


def killed(change: int, *arguments: str) -> tuple[int, str]:
    """Calls a command in a process that is killed just before its n-th change of a folder.

    Returns:
        As `call`, if the command makes fewer changes; else (-SIGKILL, "").
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            left = [change]

            def count(event: str, _: object) -> None:
                if event in {"os.rename", "os.link", "os.remove"}:
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            code, _ = call(*arguments)
            os._exit(code)
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ""


class Scene:
    """One example under way."""

    def __init__(self, ground: Ground, storm: Storm) -> None:
        ground.count += 1
        self._ground = ground
        self._storm = storm
        self.run_id = f"storm-{ground.count}"
        self.folder = ground.runs / self.run_id
        self.interruption = storm.interruption
        self.refused = ""
        ground.server.begin(storm)

    def finish(self) -> None:
        """Runs all stages; after an interruption once more, with its cause gone."""
        for _ in range(2):
            code = self._stages()
            if code == 0:
                return
            self._calm_down(code)
        code = self._stages()
        assert code == 0, f"exit code {code} although nothing stands in the way any more: {self.refused}"

    def call(self, command: str, *flags: str) -> int:
        """Calls a command, which the example may kill or refuse; its exit code."""
        at = self.interruption
        arguments = (command, "--run-id", self.run_id, *flags)
        if at and at.kind == "killed" and at.stage == command:
            self.interruption = None
            code, err = killed(at.at, *arguments)
        else:
            code, err = call(*arguments)
        assert code in {-signal.SIGKILL, *ExitCode}, (code, err)
        if code > 0:
            assert err.startswith("imagebatch: "), err
            assert err.count("\n") == 1, err
            self.refused = err
        return code

    def score_flags(self) -> list[str]:
        """Flags of score and redrive."""
        storm, interruption = self._storm, self.interruption
        stalls = any("stalled" in faults for faults in storm.passing.values())
        away = interruption is not None and interruption.kind in {"away", "broken model"}
        flags = {
            "--pack-size": storm.pack_size,
            "--in-flight": storm.in_flight,
            "--request-timeout": 1 if stalls else 60,
            "--retry-seconds": 0.2 if away else 60,
        }
        return [str(part) for flag in flags.items() for part in flag]

    def _stages(self) -> int:
        storm = self._storm
        shape = ["--input", str(self._ground.images), "--shard-size", str(storm.shard_size)]
        self._arm()
        return (
            self.call("preprocess", *shape, "--max-failures", storm.allowed)
            or self.call("score", *self.score_flags())
            or self.call("postprocess")
        )

    def _arm(self) -> None:
        """Lets the interruption happen at its request."""
        server, at = self._ground.server, self.interruption
        if at is None or at.kind == "killed":
            server.on_request = lambda _number: None
            return
        actions = {
            "another model": lambda: setattr(server, "digest", "sha256:" + "cd" * 32),
            "no key": lambda: setattr(server, "key", "secret"),
            "broken model": lambda: setattr(server, "broken", True),
            "away": lambda: setattr(server, "away", True),
            "superseded": self._supersede,
        }
        act = actions[at.kind]
        server.on_request = lambda number: act() if number == at.at else None

    def _supersede(self) -> None:
        run = open_run(str(self._ground.runs), self.run_id)
        for number in range(4):
            if run.exists(f"scores/shard-{number:05d}/attempt-00001.json"):
                Attempt.claim(run, number)

    def _calm_down(self, code: int) -> None:
        server, storm, at = self._ground.server, self._storm, self.interruption
        if (self.folder / "_SUCCESS").exists():  # a stage's times are written after its result
            assert (code, storm.interruption and storm.interruption.stage) == (-signal.SIGKILL, "postprocess")
        causes = {
            "another model": ExitCode.CONFIGURATION,
            "no key": ExitCode.CONFIGURATION,
            "broken model": ExitCode.UNAVAILABLE,
            "away": ExitCode.UNAVAILABLE,
            "superseded": ExitCode.HELD,
        }
        wanted = {causes[at.kind]} if at and at.kind in causes else {-signal.SIGKILL}
        note(f"refused: {code} {self.refused}")
        if storm.allowed != "100%" and code == ExitCode.DATA_REFUSED:
            server.storm = None
        else:
            assert code in wanted, (code, self.refused)
            self.interruption = None
        server.relent()


@pytest.mark.timeout(900)  # a failing example is shrunk
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(storm=storms())
def test_a_storm_leaves_the_calm_bytes_or_a_clean_refusal(ground: Ground, storm: Storm) -> None:
    """Faults, poison, refusals, kills: every image is predicted as in the calm run, or named a failure."""
    scene = Scene(ground, storm)
    try:
        prove(ground, scene, storm)
    finally:
        ground.server.begin(None)
        shutil.rmtree(scene.folder, ignore_errors=True)


def prove(ground: Ground, scene: Scene, storm: Storm) -> None:
    """The example's claims, in the order of a run's life."""
    scene.finish()
    missing = {row["image_id"]: row["reason"] for row in failures(scene)}
    assert {"broken.jpg", "empty.jpg"} <= missing.keys()
    poisoned = {ground.names[image] for image in storm.poison}
    if ground.server.storm is None:  # too many failures were refused: what was kept may hold some of them
        assert missing.keys() - {"broken.jpg", "empty.jpg"} <= poisoned
    else:
        assert missing.keys() - {"broken.jpg", "empty.jpg"} == poisoned
    assert csv_bytes(scene) == ground.expected(without=set(missing))
    assert call("verify", "--run-id", scene.run_id) == (0, "")
    orphan_is_powerless(ground, scene)

    if not storm.poison:
        return  # every image that can have a prediction has one
    ground.server.begin(None)
    again = scene.call("redrive", *scene.score_flags())
    if again == -signal.SIGKILL:
        again = scene.call("redrive", *scene.score_flags())
    assert again == 0, (again, scene.refused)
    assert csv_bytes(scene) == ground.expected(without=set())
    assert {row["image_id"] for row in failures(scene)} == {"broken.jpg", "empty.jpg"}
    assert call("verify", "--run-id", scene.run_id) == (0, "")


def orphan_is_powerless(ground: Ground, scene: Scene) -> None:
    """The first attempt, still running somewhere, can add nothing once there is a second one."""
    run = open_run(str(ground.runs), scene.run_id)
    orphan = Attempt.claim(run, 0)
    Attempt.claim(run, 0)
    with pytest.raises(RunHeldError):
        orphan.write_part(0, pa.Table.from_pylist([], SCORES_SCHEMA))


def csv_bytes(scene: Scene) -> bytes:
    return (scene.folder / "output/predictions.csv").read_bytes()


def failures(scene: Scene) -> list[dict[str, str]]:
    with (scene.folder / "output/failures.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))
