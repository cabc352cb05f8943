"""A run under test: its commands, and what its files say afterwards."""

import csv
import io
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.support.children import Child, last_line
from tests.system.kit.verdict import RefutedError, require
from tools.paths import program

IMAGEBATCH = str(program("pipeline_image", "imagebatch"))
# Small packs and shards: many requests and many places to be interrupted in. They never change a result.
PREPROCESS = ("--shard-size", "60", "--max-failures", "5%")
SCORE = ("--pack-size", "8", "--in-flight", "4")


@dataclass(frozen=True)
class Result:
    """What became of a scenario's run, or runs.

    Attributes:
        images: Images listed, in all runs together.
        lost: Listed images that are neither predicted nor accounted for as failed.
        doubled: Images that stand more than once in the results.
        extra_seconds: Wall time of the disturbed scoring beyond that of the undisturbed one.
        seen: What happened on the way, in a few words.
    """

    images: int
    lost: int
    doubled: int
    extra_seconds: float
    seen: str

    @property
    def figures(self) -> str:
        """Its figures for the terminal."""
        return f"{self.images:>7}{self.lost:>6}{self.doubled:>8}{self.extra:>9}"

    @property
    def extra(self) -> str:
        """The extra seconds, none of them negative; a dash where they mean nothing."""
        return "-" if math.isnan(self.extra_seconds) else f"{max(0.0, self.extra_seconds):.1f}"


class Files(Protocol):
    """Where a run's files are read."""

    def read(self, path: str) -> bytes:
        """Content of a file, by path relative to the run's folder."""


@dataclass(frozen=True)
class Folder:
    """A run on a local disk."""

    root: Path

    def read(self, path: str) -> bytes:
        """Content of a file."""
        return (self.root / path).read_bytes()

    def snapshot(self) -> dict[str, bytes]:
        """Every file's content, by path."""
        return {str(path.relative_to(self.root)): path.read_bytes() for path in _files(self.root)}


@dataclass
class Run:
    """One run.

    Attributes:
        run_id: Its name.
        environment: All variables of its commands.
        logs: Where their output is kept.
        files: Where its files are read.
        listed: Ids of the images that it must account for.
        expected: What predictions.csv must be, byte for byte.
        calm_seconds: What scoring takes undisturbed.
        program: The command line under test.
        score_seconds: Wall time from the start of its first `score` to the end of its last.
    """

    run_id: str
    environment: Mapping[str, str]
    logs: Path
    files: Files
    listed: list[str]
    expected: bytes
    calm_seconds: float
    score_seconds: float = 0.0
    program: str = IMAGEBATCH
    _first: float = 0.0
    _commands: int = field(default=0)

    def start(self, stage: str, *flags: str, environment: Mapping[str, str] | None = None) -> Child:
        """Starts one command."""
        self._commands += 1
        if stage == "score" and not self._first:
            self._first = time.monotonic()
        return Child(
            [self.program, stage, "--run-id", self.run_id, *flags],
            environment={**self.environment, **(environment or {})},
            log=self.logs / f"{self.run_id}-{self._commands:02}-{stage}.log",
        )

    def end(self, command: Child, codes: tuple[int, ...] = (0,)) -> int:
        """Waits for a command of this run, whose exit code must be one of `codes`.

        Raises:
            RefutedError: Another exit code, no end, or an error that is not one clear line.
        """
        try:
            code = command.wait()
        except TimeoutError as error:
            raise RefutedError(str(error)) from error
        self.score_seconds = time.monotonic() - self._first if self._first else 0.0
        require(code in codes, f"exit code {code} and not {codes}: {last_line(command.err)}")
        if code > 0:
            require(
                last_line(command.err).startswith("imagebatch: ") and "Traceback" not in command.err,
                f"exit code {code} without its one line: {last_line(command.err)}",
            )
        return code

    def preprocess(self, *flags: str) -> None:
        """Lists the input and pins the model."""
        self.end(self.start("preprocess", *PREPROCESS, *flags))

    def start_score(self, *flags: str, environment: Mapping[str, str] | None = None) -> Child:
        """Starts scoring all shards."""
        return self.start("score", *SCORE, *flags, environment=environment)

    def score(self, *flags: str, codes: tuple[int, ...] = (0,)) -> Child:
        """Scores all shards to the end."""
        command = self.start_score(*flags)
        self.end(command, codes)
        return command

    def settle(self, seen: str, *, failed: tuple[str, ...] = ()) -> Result:
        """Finishes the run, proves it and judges it; arguments and errors are those of `judge`."""
        self.end(self.start("postprocess"))
        self.end(self.start("verify"))
        return self.judge(seen, failed=failed)

    def judge(self, seen: str, *, failed: tuple[str, ...] = ()) -> Result:
        """Compares the outputs with those of the undisturbed run.

        Args:
            seen: What happened on the way.
            failed: The images that must have failed; all others must be predicted.

        Raises:
            RefutedError: An image is missing or there twice, or a byte differs.
        """
        predicted = ids_of(self.files.read("output/predictions.csv"))
        refused = ids_of(self.files.read("output/failures.csv"))
        found = Counter(predicted + refused)
        lost = len(set(self.listed) - found.keys())
        doubled = sum(count - 1 for count in found.values())
        require(not lost and not doubled, f"{lost} images lost, {doubled} doubled")
        require(sorted(refused) == sorted(failed), f"failed: {refused[:5]}, expected: {list(failed)}")
        same = self.files.read("output/predictions.csv") == self.expected
        require(same, "predictions.csv is not, byte for byte, that of the undisturbed run")
        extra = self.score_seconds - self.calm_seconds
        return Result(len(self.listed), lost, doubled, extra, seen)


def ids_of(table: bytes) -> list[str]:
    """The image ids of a CSV, in its order."""
    return [row[0] for row in csv.reader(io.StringIO(table.decode(), newline=""))][1:]


def only(table: bytes, ids: list[str]) -> bytes:
    """The header and the lines of some images; for ids that need no quotes."""
    header, *lines = table.split(b"\r\n")
    wanted = {image_id.encode() for image_id in ids}
    return b"\r\n".join([header, *(line for line in lines if line.partition(b",")[0] in wanted), b""])


def as_model(table: bytes, version: str, digest: str) -> bytes:
    """The same predictions as another version and digest of the model would sign them."""
    return re.sub(rb",[^,\r\n]+,sha256:[0-9a-f]{64}\r\n", f",{version},{digest}\r\n".encode(), table)


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())
