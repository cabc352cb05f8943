"""A run's files: nothing half-written, one creator, on a local disk and in an object store."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imagebatch.contracts.rows import MANIFEST_SCHEMA
from imagebatch.errors import ConfigurationError, RunHeldError, StorageError
from imagebatch.runs.folder import (
    LocalRunFolder,
    RunFolder,
    open_run,
    parquet_bytes,
    parquet_rows,
)
from imagebatch.runs.object_store import FsspecRunFolder

from tests.support.calls import Call


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


def test_no_flipped_bit_of_a_table_gives_other_rows() -> None:
    """One bit flipped at every byte of a manifest, in turn: the same rows, or it shows. Older files read."""
    names = [f"{at}.jpg" for at in range(9)]
    rows = [{"image_id": name, "uri": name, "size": 7, "sha256": name.encode().hex()} for name in names]
    table = pa.Table.from_pylist([*rows, {"image_id": "z", "uri": "z", "reason": "empty"}], MANIFEST_SCHEMA)
    whole = parquet_bytes(table)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        try:
            found = parquet_rows(bytes(damaged))
        except (pa.ArrowInvalid, OSError):
            continue
        # Of the footer, which has no checksum, a flip shows: whoever reads knows the columns and the ids.
        shows = not found.schema.equals(table.schema) or found.num_rows != table.num_rows
        assert found.equals(table) or shows, at
    earlier = io.BytesIO()
    pq.write_table(table, earlier, compression="zstd")
    assert parquet_rows(earlier.getvalue()).equals(table)


def test_a_manifest_that_has_changed_is_not_scored(call: Call, images: Path, runs: Path) -> None:
    """A flipped bit could reject an image, or let another be read: 65, and the file is named."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    path = runs / "r/manifest/shard-00000.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1  # in its first page
    path.write_bytes(data)
    outcome = call("score", "--run-id", "r")
    assert outcome.code == 65
    assert "manifest/shard-00000.parquet is not a readable Parquet file" in outcome.err
