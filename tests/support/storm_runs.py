"""Runs in storms, and the rules that hold whatever a server does and wherever a process dies."""

from __future__ import annotations

import csv
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from imagebatch.contracts.rows import SCORES_SCHEMA
from imagebatch.errors import ExitCode, RunHeldError
from imagebatch.model_apis import retry
from imagebatch.model_apis.torchserve import keys
from imagebatch.runs.folder import open_run
from imagebatch.stages.score import shard
from imagebatch.stages.score.attempts import Attempt

from tests.support.images import jpeg
from tests.support.killing import call, killed
from tests.support.moody_server import Moody
from tests.support.storms import GOOD, Storm

HASTE = (
    # The pauses' lengths are not what is tested here: scaled down, 500 storms take a minute.
    (retry, "FIRST_PAUSE", 0.001),
    (retry, "LONGEST_PAUSE", 0.01),
    (keys, "_READ_PAUSE", 0.001),
    # Parts small enough that fourteen images make several.
    (shard, "PART_ROWS", 5),
)
NEVER_PREDICTED = {"broken.jpg", "empty.jpg"}  # one that the handler refuses, one that preprocess rejects
CAUSES = {
    "another model": ExitCode.CONFIGURATION,
    "no key": ExitCode.CONFIGURATION,
    "broken model": ExitCode.UNAVAILABLE,
    "away": ExitCode.UNAVAILABLE,
    "superseded": ExitCode.HELD,
}


def hasten() -> None:
    """Scale this process down, for good."""
    for module, name, value in HASTE:
        setattr(module, name, value)


class Ground:
    """What all storms share: images, the calm run's lines, the server, a folder for runs.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.images.mkdir()
        self.names = [f"{seed:02}.jpg" for seed in range(GOOD)]
        for seed, name in enumerate(self.names):
            (self.images / name).write_bytes(jpeg(seed, (8, 8)))
        (self.images / "broken.jpg").write_bytes(jpeg(98, (8, 8)) + b"BROKEN")
        (self.images / "empty.jpg").write_bytes(b"")
        self.server = Moody([(self.images / name).read_bytes() for name in self.names])
        self.runs = folder / "runs"
        self.count = 0
        self._header = ""
        self._lines: dict[str, str] = {}

    def measure_calm(self) -> None:
        """Make the undisturbed run that all others are compared with."""
        self.server.begin(None)
        for command in ("preprocess", "score", "postprocess"):
            flags = ("--input", str(self.images), "--max-failures", "100%") if command == "preprocess" else ()
            assert call(command, "--run-id", "calm", *flags) == (0, "")
        product = (self.runs / "calm/output/predictions.csv").read_bytes().decode()
        self._header, *lines = product.splitlines(keepends=True)
        self._lines = {line.partition(",")[0]: line for line in lines}
        assert list(self._lines) == self.names

    def expected(self, without: set[str]) -> bytes:
        """The calm run's CSV without some images' lines."""
        lines = (line for name, line in self._lines.items() if name not in without)
        return "".join([self._header, *lines]).encode()


@contextmanager
def calm_ground() -> Iterator[Ground]:
    """The ground, in memory where there is such a disk: thousands of flushes would take most of the time."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        ground = Ground(Path(folder))
        for module, name, value in HASTE:
            patch.setattr(module, name, value)
        patch.setenv("IMAGEBATCH_API_URL", ground.server.url)
        patch.setenv("IMAGEBATCH_MANAGEMENT_URL", ground.server.url)
        patch.setenv("IMAGEBATCH_RUNS_URI", str(ground.runs))
        patch.setenv("IMAGEBATCH_LOG_LEVEL", "error")
        ground.measure_calm()
        yield ground
        ground.server.close()


def rule(name: str, *, holds: bool, seen: object) -> None:
    """Say by name which rule is broken.

    Raises:
        AssertionError: It does not hold.
    """
    if not holds:
        raise AssertionError(f"broken: {name}; seen: {seen}")


class StormRun:
    """One run in a storm.

    Attributes:
        stopped: Exit codes of the stages that the storm stopped.
    """

    def __init__(self, ground: Ground, storm: Storm) -> None:
        ground.count += 1
        self._ground = ground
        self._storm = storm
        self._run_id = f"storm-{ground.count}"
        self._folder = ground.runs / self._run_id
        self._interruption = storm.interruption
        self._refused = ""
        self.stopped: list[int] = []

    def prove(self) -> None:
        """Make the run, and hold the rules to it, in the order of its life.

        Raises:
            AssertionError: Names the rule that is broken.
        """
        ground, storm = self._ground, self._storm
        ground.server.begin(storm)
        try:
            if not self._finish():
                return
            self._every_image_is_accounted_for()
            self._proven()
            self._orphan_is_powerless()
            if storm.poison:  # else every image that can have a prediction has one
                self._redriven()
        finally:
            ground.server.begin(None)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> bool:
        """Run all stages; after an interruption once more, with its cause gone.

        Returns:
            Whether there is a product: shards that were done before the refusal keep their failures, and
            where these alone are more than is allowed, the run stays refused, in calm weather too.
        """
        for _ in range(2):
            code = self._stages()
            if code == 0:
                return True
            self._relent(code)
        code = self._stages()
        kept = code == ExitCode.DATA_REFUSED and self._kept_too_many()
        rule(
            "a run ends well once nothing is in its way", holds=code == 0 or kept, seen=(code, self._refused)
        )
        return not kept

    def _kept_too_many(self) -> bool:
        failed = set(self._failures())
        poisoned = {self._ground.names[image] for image in self._storm.poison}
        blamed = NEVER_PREDICTED <= failed <= NEVER_PREDICTED | poisoned
        return blamed and self._storm.allowed.isdecimal() and len(failed) > int(self._storm.allowed)

    def _every_image_is_accounted_for(self) -> None:
        missing = set(self._failures())
        poisoned = {self._ground.names[image] for image in self._storm.poison}
        if self._ground.server.storm is None:  # too many failures were refused: what was kept may hold some
            blamed = missing - NEVER_PREDICTED <= poisoned
        else:
            blamed = missing - NEVER_PREDICTED == poisoned
        rule("an image fails that cannot be predicted", holds=missing >= NEVER_PREDICTED, seen=missing)
        rule("no other image is blamed than the poison", holds=blamed, seen=(missing, poisoned))
        same = self._product() == self._ground.expected(without=missing)
        rule("all others have the calm run's bytes", holds=same, seen=self._product())

    def _proven(self) -> None:
        verified = call("verify", "--run-id", self._run_id)
        rule("verify proves the run", holds=verified == (0, ""), seen=verified)

    def _orphan_is_powerless(self) -> None:
        """The first attempt, still running somewhere, can add nothing once there is a second one."""
        run = open_run(str(self._ground.runs), self._run_id)
        orphan = Attempt.claim(run, 0)
        Attempt.claim(run, 0)
        with pytest.raises(RunHeldError):
            orphan.write_part(0, pa.Table.from_pylist([], SCORES_SCHEMA))

    def _redriven(self) -> None:
        self._ground.server.begin(None)
        again = self._call("redrive", *self._score_flags())
        if again == -signal.SIGKILL:
            again = self._call("redrive", *self._score_flags())
        rule("a redrive in calm weather ends well", holds=again == 0, seen=(again, self._refused))
        whole = self._product() == self._ground.expected(without=set())
        rule(
            "a redrive brings the poisoned images, and the calm run's bytes",
            holds=whole,
            seen=self._product(),
        )
        left = set(self._failures())
        rule("only what cannot be predicted still fails", holds=left == NEVER_PREDICTED, seen=left)
        self._proven()

    def _stages(self) -> int:
        storm = self._storm
        shape = ["--input", str(self._ground.images), "--shard-size", str(storm.shard_size)]
        self._arm()
        return (
            self._call("preprocess", *shape, "--max-failures", storm.allowed)
            or self._call("score", *self._score_flags())
            or self._call("postprocess")
        )

    def _call(self, command: str, *flags: str) -> int:
        """Call a command, which the storm may kill or refuse; give its exit code."""
        at = self._interruption
        arguments = (command, "--run-id", self._run_id, *flags)
        if at and at.kind == "killed" and at.stage == command:
            self._interruption = None
            code, err = killed(at.at, hasten, arguments)
        else:
            code, err = call(*arguments)
        rule(
            "an exit code is one of the protocol's",
            holds=code in {-signal.SIGKILL, *ExitCode},
            seen=(code, err),
        )
        if code > 0:
            one_line = err.startswith("imagebatch: ") and err.count("\n") == 1
            rule("an error is one line", holds=one_line, seen=err)
            self._refused = err
        if code:
            self.stopped.append(code)
        return code

    def _score_flags(self) -> list[str]:
        """Flags of score and redrive."""
        storm, interruption = self._storm, self._interruption
        stalls = any("stalled" in faults for faults in storm.passing.values())
        away = interruption is not None and interruption.kind in {"away", "broken model"}
        flags = {
            "--pack-size": storm.pack_size,
            "--in-flight": storm.in_flight,
            "--request-timeout": 1 if stalls else 60,
            "--retry-seconds": 0.2 if away else 60,
        }
        return [str(part) for flag in flags.items() for part in flag]

    def _arm(self) -> None:
        """Let the interruption happen at its request."""
        server, at = self._ground.server, self._interruption
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
        run = open_run(str(self._ground.runs), self._run_id)
        for number in range(4):
            if run.exists(f"scores/shard-{number:05d}/attempt-00001.json"):
                Attempt.claim(run, number)

    def _relent(self, code: int) -> None:
        """Judge why a stage has ended, and take the cause away."""
        server, storm, at = self._ground.server, self._storm, self._interruption
        if (self._folder / "_SUCCESS").exists():  # a stage's times are written after its result
            stage = storm.interruption and storm.interruption.stage
            late = (code, stage) == (-signal.SIGKILL, "postprocess")
            rule("only a kill ends a stage that has its result", holds=late, seen=(code, stage))
        if storm.allowed != "100%" and code == ExitCode.DATA_REFUSED:
            server.storm = None
        else:
            wanted = CAUSES[at.kind] if at and at.kind in CAUSES else -signal.SIGKILL
            rule("a stage is refused for its cause alone", holds=code == wanted, seen=(code, self._refused))
            self._interruption = None
        server.relent()

    def _product(self) -> bytes:
        return (self._folder / "output/predictions.csv").read_bytes()

    def _failures(self) -> list[str]:
        with (self._folder / "output/failures.csv").open(newline="") as stream:
            return [row["image_id"] for row in csv.DictReader(stream)]
