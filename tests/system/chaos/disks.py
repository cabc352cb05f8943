"""A run directory that is full, or read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.chaos.ground import Ground, scenario
from tests.system.chaos.runs import Result
from tests.system.kit.verdict import RefutedError, require

_ROOM = 48 * 2**20


@scenario
def disk_full(ground: Ground) -> Result:
    """The run directory's disk is full in `score` (nothing left, then a few KB left) and in `postprocess`:
    each ends with 74, and succeeds when there is room."""
    with _small_disk(ground.folder / "small-disk") as disk:
        run = ground.prepared("disk-full", runs=disk)
        for left in (0, 12 * 1024):
            with _filled(disk, left):
                run.score(codes=(74,))
        run.score()
        with _filled(disk, 0):
            run.end(run.start("postprocess"), codes=(74,))
            require(not (disk / "disk-full/_SUCCESS").exists(), "a failed postprocess left _SUCCESS")
        return run.settle("74 three times, then done")


@scenario
def read_only(ground: Ground) -> Result:
    """The run directory is read-only in `score` and in `postprocess`: each ends with 74, later succeeds."""
    with _small_disk(ground.folder / "read-only-disk") as disk:
        run = ground.prepared("read-only", runs=disk)
        with _read_only(disk):
            run.score(codes=(74,))
        run.score()
        with _read_only(disk):
            run.end(run.start("postprocess"), codes=(74,))
        return run.settle("74 twice, then done")


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own in memory."""
    folder.mkdir()
    _mount("mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "imagebatch-chaos", str(folder))
    try:
        yield folder
    finally:
        _mount("umount", str(folder))


@contextmanager
def _filled(disk: Path, left: int) -> Iterator[None]:
    """Fills the disk but for some bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(2**20)):
                pass
        except OSError:
            os.ftruncate(stream.fileno(), max(0, stream.tell() - left))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    _mount("mount", "-o", "remount,ro", str(disk))
    try:
        yield
    finally:
        _mount("mount", "-o", "remount,rw", str(disk))


def _mount(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefutedError(
            f"{' '.join(argv)}: {done.stderr.strip()}; mounting needs root (--list names the others)"
        )
