"""Digests, and files that a reader never finds half-written."""

import hashlib
from pathlib import Path

import pytest
from imagebatch_training.files import publish, read_json, sha256_file, sha256_json, write_json, write_text


def test_the_digest_of_a_file_is_sha256(tmp_path: Path) -> None:
    """Over several pieces of a megabyte, as `sha256sum` prints it."""
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_the_digest_of_a_value_does_not_depend_on_the_order_of_keys() -> None:
    """The order of a list does count: it is the order of classes, files or penalties."""
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1, "b": [1, 2]}) != sha256_json({"a": 1, "b": [2, 1]})


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A reader finds the last whole file or the new one; the temporary one is gone either way."""
    path = tmp_path / "new" / "model.bin"
    with publish(path) as temporary:
        temporary.write_bytes(b"whole")

    def write_half() -> None:
        with publish(path) as temporary:
            temporary.write_bytes(b"ha")
            assert path.read_bytes() == b"whole"
            assert (temporary.parent, temporary.suffix) == (path.parent, ".bin")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_published_file_can_be_read_by_others(tmp_path: Path) -> None:
    """The model server runs as another user; some writers make files for their own user only."""
    with publish(tmp_path / "model.mar") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "model.mar").stat().st_mode & 0o777 == 0o644


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    """UTF-8 and the line ends given: a CSV keeps its CRLF."""
    write_text(tmp_path / "a.csv", "ü\r\n\n")
    assert (tmp_path / "a.csv").read_bytes() == b"\xc3\xbc\r\n\n"


def test_a_record_that_is_missing_or_damaged_is_none(tmp_path: Path) -> None:
    """Which means to its callers: make it again."""
    path = tmp_path / "record.json"
    assert read_json(path) is None
    path.write_bytes(b'{"key": "half')
    assert read_json(path) is None
    path.write_bytes(b"\xff\xfe")
    assert read_json(path) is None
    write_json(path, {"b": 1, "a": [2]})
    assert read_json(path) == {"b": 1, "a": [2]}
    assert path.read_text().index('"b"') < path.read_text().index('"a"')
