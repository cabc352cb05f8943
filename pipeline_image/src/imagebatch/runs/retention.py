"""All runs below one URI: which there are, how large and how old, and their removal.

Only what is plainly a run is seen: a folder (no link) with a run's name and a `run.json`. A crash on the way
leaves no run that looks whole: locally a run's folder is renamed before it is removed; in an object store a
tombstone is written first. The next call finishes what it finds half removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
from typing_extensions import override

from imagebatch.contracts.layout import RUN_JSON, SUCCESS
from imagebatch.errors import ConfigurationError, ImagebatchError, RunHeldError, StorageError, one_line
from imagebatch.runs.at_work import TOMBSTONE

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HALF_REMOVED = re.compile(r"\.pruned-[A-Za-z0-9][A-Za-z0-9._-]{0,127}-[0-9a-f]{32}")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_GLOB = re.compile(r"[*?\[\]]")


@dataclass(slots=True)
class StoredRun:
    """A run as its files look from outside.

    Attributes:
        name: Its run id.
        size: Bytes of all files.
        modified: When a file of it was last written, in seconds since 1970.
        finished: When it succeeded, in seconds since 1970; none if it has not.
        temporary: Path below the root, size and time of each file that a killed writer may have left.
        removed_by_half: Its removal was begun and not finished.
    """

    name: str
    size: int = 0
    modified: float = 0.0
    finished: float | None = None
    temporary: list[tuple[str, int, float]] = field(default_factory=list)
    removed_by_half: bool = False


class RunsRoot(ABC):
    """Open the runs below one URI."""

    uri: str

    @abstractmethod
    def runs(self) -> Iterator[StoredRun]:
        """Yield every run, in no order.

        Raises:
            ConfigurationError: There is no such folder.
            StorageError: It cannot be read.
        """

    @abstractmethod
    def description(self, name: str) -> bytes:
        """Return a run's run.json."""

    @abstractmethod
    def remove(self, run: StoredRun) -> None:
        """Remove a run as a whole.

        Raises:
            RunHeldError: Somebody has written to it since it was measured; it stays.
            StorageError: Something of it cannot be removed.
        """

    @abstractmethod
    def remove_temporary(self, path: str) -> None:
        """Remove one of a run's `temporary` files."""


def open_runs(runs_uri: str) -> RunsRoot:
    """Open the runs below a local path, `file://` URI or any fsspec URI.

    Raises:
        ConfigurationError: The kind of URI is not known, or needs a package that is not installed.
    """
    parts = urlsplit(runs_uri)
    if "://" not in runs_uri or parts.scheme == "file":
        return LocalRunsRoot(Path(unquote(parts.path) if "://" in runs_uri else runs_uri))
    try:
        filesystem, root = fsspec.core.url_to_fs(runs_uri)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"--runs-uri {runs_uri}: {error}") from error
    return FsspecRunsRoot(filesystem, root.rstrip("/"), runs_uri.rstrip("/"))


class LocalRunsRoot(RunsRoot):
    """Runs on a local disk."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.uri = str(self._root)

    @override
    def runs(self) -> Iterator[StoredRun]:
        with _translated("list", self.uri), os.scandir(self._root) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in folders:
            half = bool(_HALF_REMOVED.fullmatch(name))
            if half or (_NAME.fullmatch(name) and (self._root / name / RUN_JSON).is_file()):
                with _translated("list", f"{self.uri}/{name}"):
                    run = self._measured(name)
                run.removed_by_half = half
                yield run

    @override
    def description(self, name: str) -> bytes:
        return (self._root / name / RUN_JSON).read_bytes()

    @override
    def remove(self, run: StoredRun) -> None:
        folder = self._root / run.name
        with _translated("remove", str(folder)):
            if not run.removed_by_half:
                away = folder.rename(self._root / f".pruned-{run.name}-{uuid.uuid4().hex}")
                if self._measured(away.name).modified > run.modified:
                    away.rename(folder)
                    raise _at_work(run)
                folder = away
            shutil.rmtree(folder)  # removes a link, never what it points to

    @override
    def remove_temporary(self, path: str) -> None:
        with _translated("remove", f"{self.uri}/{path}"):
            (self._root / path).unlink(missing_ok=True)

    def _measured(self, name: str) -> StoredRun:
        run = StoredRun(name)
        for folder, _, files in os.walk(self._root / name):
            for file in files:
                path = Path(folder, file)
                with contextlib.suppress(FileNotFoundError):  # a writer's temporary name, renamed meanwhile
                    status = path.lstat()
                    run.size += status.st_size
                    run.modified = max(run.modified, status.st_mtime)
                    if file.startswith(".") and file.endswith(".tmp"):
                        where = str(path.relative_to(self._root))
                        run.temporary.append((where, status.st_size, status.st_mtime))
        with contextlib.suppress(FileNotFoundError):
            run.finished = (self._root / name / SUCCESS).lstat().st_mtime
        return run


class FsspecRunsRoot(RunsRoot):
    """Runs in an object store."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str, uri: str) -> None:
        self._fs = filesystem
        self._root = root
        self.uri = uri

    @override
    def runs(self) -> Iterator[StoredRun]:
        with _translated("list", self.uri):
            self._fs.invalidate_cache()
            entries = self._fs.ls(self._root, detail=True)
        for entry in entries:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            if entry["type"] == "directory" and _NAME.fullmatch(name):
                run = self._measured(name)
                if run is not None:
                    yield run

    @override
    def description(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(f"{self._root}/{name}/{RUN_JSON}"))

    @override
    def remove(self, run: StoredRun) -> None:
        base = f"{self._root}/{run.name}"
        with _translated("remove", f"{self.uri}/{run.name}"):
            self._fs.pipe_file(f"{base}/{TOMBSTONE}", b"")
            if not run.removed_by_half and self._modified(base) > run.modified:
                self._fs.rm_file(f"{base}/{TOMBSTONE}")
                raise _at_work(run)
            last = [f"{base}/{RUN_JSON}", f"{base}/{TOMBSTONE}"]
            paths = [path for path in self._fs.find(base) if path not in last]
            plain = [path for path in paths if not _GLOB.search(path)]
            if plain:
                self._fs.rm(plain)  # in bulk
            for path in [*(path for path in paths if _GLOB.search(path)), *last]:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(path)

    @override
    def remove_temporary(self, path: str) -> None:
        raise NotImplementedError  # objects appear whole: there are none

    def _modified(self, base: str) -> float:
        """Tell when something of a run was last written, the tombstone aside; 0 if it has gone."""
        self._fs.invalidate_cache()
        found = self._fs.find(base, detail=True)
        return max((_time(info) for path, info in found.items() if path != f"{base}/{TOMBSTONE}"), default=0)

    def _measured(self, name: str) -> StoredRun | None:
        base = f"{self._root}/{name}"
        with _translated("list", f"{self.uri}/{name}"):
            found = self._fs.find(base, detail=True)
        half = f"{base}/{TOMBSTONE}" in found
        if not half and f"{base}/{RUN_JSON}" not in found:
            return None
        run = StoredRun(name, removed_by_half=half)
        for path, info in found.items():
            time = _time(info)
            run.size += int(info.get("size") or 0)
            run.modified = max(run.modified, time)
            if path == f"{base}/{SUCCESS}":
                run.finished = time
        return run


def _at_work(run: StoredRun) -> RunHeldError:
    return RunHeldError(f"{run.name} was written to just now: it stays")


def _time(info: dict[str, Any]) -> float:
    """When an object was written, whatever its store calls that."""
    value = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, int | float):
        return float(value)
    raise StorageError(f"the store does not say when {one_line(info.get('name'), 200)} was written")


@contextlib.contextmanager
def _translated(verb: str, uri: str) -> Iterator[None]:
    try:
        yield
    except ImagebatchError:
        raise
    except FileNotFoundError as error:
        raise ConfigurationError(f"no runs at {uri}: give the folder of the runs with --runs-uri") from error
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StorageError(
            f"cannot {verb} {uri}: {text}; check the rights, then run the same command again"
        ) from error
