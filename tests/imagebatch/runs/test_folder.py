"""A run's files: nothing half-written, one creator, on a local disk and in an object store."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imagebatch.errors import ConfigurationError, RunHeldError, StorageError
from imagebatch.runs.folder import FsspecRunFolder, LocalRunFolder, RunFolder, open_run


@pytest.fixture(params=["local", "object store"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    if request.param == "local":
        return LocalRunFolder(tmp_path / "r")
    folder = open_run(f"memory://{tmp_path.name}", "r")
    assert isinstance(folder, FsspecRunFolder)
    return folder


def test_write_replaces_and_create_does_not(run: RunFolder) -> None:
    """`create` is refused once there is a file, and leaves it as it is."""
    run.write("a/b.txt", b"1")
    run.write("a/b.txt", b"2")
    assert not run.create("a/b.txt", b"3")
    assert run.create("a/c.txt", b"4")
    assert (run.read("a/b.txt"), run.read("a/c.txt")) == (b"2", b"4")
    assert run.list("a") == ["a/b.txt", "a/c.txt"]
    assert run.list("nothing") == []


def test_an_error_while_writing_publishes_nothing(run: RunFolder) -> None:
    """A file appears whole or not at all, and no temporary file stays."""

    def interrupted() -> None:
        with run.publishing("x") as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert not run.exists("x")
    assert run.list("") == []


def test_missing_file_is_told_apart(run: RunFolder) -> None:
    """A missing file is not a storage failure: the caller decides what it means."""
    with pytest.raises(FileNotFoundError):
        run.read("nothing")


def test_an_error_while_reading_is_the_callers(run: RunFolder) -> None:
    """What goes wrong between two reads keeps its kind, and so its exit code."""
    run.write("x", b"1")
    with pytest.raises(RunHeldError), run.reading("x"):
        raise RunHeldError("superseded")
    with pytest.raises(pa.ArrowInvalid), run.reading("x") as stream:
        pq.ParquetFile(stream)


def test_one_creator_among_many(tmp_path: Path) -> None:
    """Of 16 threads that create the same file, one succeeds, and the file is its file."""
    run = LocalRunFolder(tmp_path)
    with ThreadPoolExecutor(16) as threads:
        created = list(threads.map(lambda number: run.create("x", str(number).encode()), range(16)))
    assert created.count(True) == 1
    assert run.read("x") == str(created.index(True)).encode()


def test_a_full_or_read_only_disk_is_a_storage_error(tmp_path: Path) -> None:
    """The one-line error names the file and says what to do; a path below a file cannot be made by anyone."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*file/x: File exists; check the disk"):
        LocalRunFolder(tmp_path / "file").write("x", b"1")


@pytest.mark.parametrize("uri", ["nosuch://bucket", "abfs-nonsense://x"])
def test_unknown_scheme(uri: str) -> None:
    """A kind of URI that nothing handles is a configuration error."""
    with pytest.raises(ConfigurationError, match="--runs-uri"):
        open_run(uri, "r")


def test_file_uri_is_a_path(tmp_path: Path) -> None:
    """`file://` and a plain path mean the same folder."""
    open_run(f"file://{tmp_path}", "r").write("x", b"1")
    assert open_run(os.fspath(tmp_path), "r").read("x") == b"1"


def test_a_published_name_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is flushed under its temporary name, then every folder that got a new name, lowest first."""
    flushed: list[str] = []
    flush = os.fsync

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append(str(path.relative_to(tmp_path)) if path.suffix != ".tmp" else "the file")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    run = LocalRunFolder(tmp_path / "r")
    run.write("a/b.txt", b"1")
    assert flushed == ["the file", "r/a", "r", "."]
    flushed.clear()
    assert run.create("a/c.txt", b"2")
    assert flushed == ["the file", "r/a"]
