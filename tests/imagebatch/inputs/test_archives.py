"""Archives as inputs: members are images, confined and bounded as files are."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from imagebatch.contracts.records import LeftOut, Reason
from imagebatch.errors import ConfigurationError, DataRefusedError, InputNotFoundError
from imagebatch.inputs import archives
from imagebatch.inputs.listing import InputListing
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError

from tests.support.calls import Call
from tests.support.images import jpeg

PHOTOS = {"a.jpg": b"first", "b/ü 100%?#!.jpg": b"second" * 1000, "b/empty.jpg": b""}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]  # the mode is a parameter
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def found(uri: str, *, root: str = "", most: int = 10_000) -> dict[bytes, bytes | Reason]:
    """What is read of each image that an input lists."""
    source = ImageSource([root or uri], most)
    return {name: read(source, one) for name, one in InputListing(uri, ["*.jpg"], source)}


def read(source: ImageSource, uri: str) -> bytes | Reason:
    try:
        return source.read(uri)
    except ImageUnavailableError as error:
        return error.reason


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.zip", zipped(PHOTOS)),
        ("x.ZIP", zipped(PHOTOS, zipfile.ZIP_STORED)),
        ("bzip2.zip", zipped(PHOTOS, zipfile.ZIP_BZIP2)),
        ("prefixed.zip", b"#!/bin/sh\n" + zipped(PHOTOS)),
        ("no-suffix-zip", zipped(PHOTOS)),
        ("x.tar", tarred(PHOTOS)),
        ("no-suffix-tar", tarred(PHOTOS)),
        ("x.tar.gz", tarred(PHOTOS, "w:gz")),
        ("x.tgz", tarred(PHOTOS, "w:gz")),
        ("x.tar.bz2", tarred(PHOTOS, "w:bz2")),
        ("x.tar.xz", tarred(PHOTOS, "w:xz")),
    ],
)
def test_members_are_images(tmp_path: Path, name: str, data: bytes) -> None:
    """Each is read by its own bytes, from a disk and from a store; other files are counted."""
    expected = {key.encode(): content for key, content in PHOTOS.items()}
    (tmp_path / name).write_bytes(data)
    assert found(str(tmp_path / name)) == expected
    fsspec.filesystem("memory").pipe(f"/archives/{name}", data)
    if "no-suffix" not in name:
        assert found(f"memory://archives/{name}") == expected


def test_a_folder_of_shards_is_one_input(tmp_path: Path) -> None:
    """WebDataset's: ids are stable, by shard and member; texts beside the images are counted, not listed."""
    for shard in range(3):
        data = tarred(
            {f"./{shard}{at}.{kind}": f"{shard}{at}".encode() for at in range(4) for kind in ("jpg", "cls")}
        )
        (tmp_path / f"s-{shard:06}.tar").write_bytes(data)
        fsspec.filesystem("memory").pipe(f"/shards/s-{shard:06}.tar", data)
    (tmp_path / "index.json").write_text("{}")
    expected = {
        f"s-{shard:06}.tar/{shard}{at}.jpg".encode(): f"{shard}{at}".encode()
        for shard in range(3)
        for at in range(4)
    }
    assert found(str(tmp_path)) == expected
    assert found("memory://shards") == expected
    source = ImageSource([str(tmp_path)], 100)
    left_out: list[bytes] = []
    listing = InputListing(str(tmp_path), ["*.jpg"], source, lambda name, _: left_out.append(name))
    assert (len(list(listing)), len(left_out)) == (12, 13)
    assert {b"index.json", b"s-000001.tar/10.cls"} <= set(left_out)
    (tmp_path / "own.jpg").write_bytes(b"1")
    assert found(str(tmp_path)) == {b"own.jpg": b"1"}


def test_what_a_computer_packed_along_is_left_out(tmp_path: Path) -> None:
    """A Mac's zip holds a shadow of each file, which is no image although it is named like one."""
    photographs = {f"batch/{at}.jpg": b"1" for at in range(3)}
    shadows = {f"__MACOSX/batch/._{at}.jpg": b"2" for at in range(3)}
    with zipfile.ZipFile(tmp_path / "photographs.zip", "w") as archive:
        for name, data in (photographs | shadows).items():
            archive.writestr(name, data)
    uri = str(tmp_path / "photographs.zip")
    left_out: list[tuple[bytes, LeftOut]] = []
    listing = InputListing(
        uri, ["*.jpg"], ImageSource([uri], 100), lambda name, why: left_out.append((name, why))
    )
    assert {name.decode() for name, _ in listing} == set(photographs)
    assert sorted(left_out) == [(name.encode(), LeftOut.SIDE_FILE) for name in sorted(shadows)]


def test_shards_outside_the_roots_are_not_opened(tmp_path: Path) -> None:
    """A link among the shards that leads out is one reject."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(tarred({"a.jpg": b"1"}))
    (tmp_path / "secret.tar").write_bytes(tarred({"s.jpg": b"1"}))
    (tmp_path / "in/b.tar").symlink_to(tmp_path / "secret.tar")
    assert found(str(tmp_path / "in")) == {b"a.tar/a.jpg": b"1", b"b.tar": Reason.OUTSIDE_ALLOWED_ROOTS}


def test_a_members_uri_opens_no_other_archive(tmp_path: Path) -> None:
    """Whoever writes a list can name members inside the roots alone, and no nonsense ends a run."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.tar").write_bytes(tarred({"s.jpg": b"1234"}))
    (tmp_path / "in/a.tar").write_bytes(tarred({"a.jpg": b"1"}))
    source = ImageSource([str(tmp_path / "in")], 100)
    fsspec.filesystem("memory").pipe("/secret/x.tar", b"1234")
    for uri, reason in (
        (f"tar:file://{tmp_path}/secret.tar!/s.jpg?at=512&size=4", Reason.OUTSIDE_ALLOWED_ROOTS),
        (f"tar:file://{tmp_path}/in/../secret.tar!/s.jpg?at=512&size=4", Reason.OUTSIDE_ALLOWED_ROOTS),
        ("tar:memory://secret/x.tar!/s.jpg?at=512&size=4", Reason.OUTSIDE_ALLOWED_ROOTS),
        (f"tar:file://{tmp_path}/in/none.tar!/s.jpg?at=512&size=4", Reason.NOT_FOUND),
        (f"tar:file://{tmp_path}/in!/s.jpg?at=1&size=4", Reason.NOT_A_FILE),
        (f"tar:file://{tmp_path}/in/none.tar!/s.jpg?at=-1", Reason.NOT_FOUND),
        (f"tar:file://{tmp_path}/in/none.tar!/s.jpg?at=1{'0' * 30}", Reason.NOT_FOUND),
        (f"tar:file://{tmp_path}/in/none.tar!/s.jpg?packing=rar", Reason.NOT_FOUND),
        (f"tar:file://{tmp_path}/in/none.tar!/s.jpg?archive=x", Reason.NOT_FOUND),
        (f"tar:file://{tmp_path}/in/a.tar!/a.jpg?at=4&size=4", Reason.UNREADABLE),
        (f"tar:file://{tmp_path}/in/a.tar!/a.jpg?at=600&size=1", Reason.UNREADABLE),
        ("tar:!/x", Reason.OUTSIDE_ALLOWED_ROOTS),
    ):
        assert read(source, uri) is reason, uri


def test_members_that_are_no_plain_files(tmp_path: Path) -> None:
    """Names that lead out, links, devices: each one rejected row, and its neighbours are read."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind in (
            ("../up.jpg", tarfile.REGTYPE),
            ("/root.jpg", tarfile.REGTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("fifo.jpg", tarfile.FIFOTYPE),
            ("good.jpg", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info, io.BytesIO())
    (tmp_path / "x.tar").write_bytes(data.getvalue())
    assert found(str(tmp_path / "x.tar")) == {
        b"../up.jpg": Reason.OUTSIDE_ALLOWED_ROOTS,
        b"/root.jpg": Reason.OUTSIDE_ALLOWED_ROOTS,
        b"link.jpg": Reason.NOT_A_FILE,
        b"hard.jpg": Reason.NOT_A_FILE,
        b"fifo.jpg": Reason.NOT_A_FILE,
        b"good.jpg": b"",
    }


def test_a_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a member claims to hold, and what it really unpacks to, are both bounded; so is a packed tar."""
    honest = zipped({"a.jpg": bytes(50_000_000)})
    small = (1000).to_bytes(4, "little")
    lying = honest.replace((50_000_000).to_bytes(4, "little"), small)
    for name, data in (("honest.zip", honest), ("lying.zip", lying)):
        (tmp_path / name).write_bytes(data)
        assert found(str(tmp_path / name)) == {b"a.jpg": Reason.TOO_MANY_BYTES}
    (tmp_path / "x.tar.gz").write_bytes(tarred({"a.jpg": bytes(20_000_000)}, "w:gz"))
    monkeypatch.setattr(archives, "_ALWAYS_FINE", 1 << 20)
    with pytest.raises(DataRefusedError, match="unpacks to more than"):
        found(str(tmp_path / "x.tar.gz"))


def test_damage_is_told(tmp_path: Path) -> None:
    """A cut or altered archive refuses the run if it cannot be listed to its end, else one row."""
    whole = {name: tarred(PHOTOS, f"w:{kind}") for name, kind in (("x.tar", ""), ("y.tar.gz", "gz"))}
    whole["z.zip"] = zipped(PHOTOS, zipfile.ZIP_STORED)
    for name, data in whole.items():
        for cut in (1, len(data) // 2, len(data) - 30):
            (tmp_path / name).write_bytes(data[:cut] if name != "x.tar" else data[: min(cut, 4000)])
            with pytest.raises(DataRefusedError, match="copy it again"):
                found(str(tmp_path / name))
    (tmp_path / "b.tar.bz2").write_bytes(tarred(PHOTOS, "w:bz2").replace(b"1AY&SY", b"2AY&SY"))
    with pytest.raises(DataRefusedError, match="damaged"):
        found(str(tmp_path / "b.tar.bz2"))
    header = bytearray(whole["x.tar"])
    header[1024 + 5] ^= 1  # of the second member: a reader would take it for the end
    for data in (bytes(header), whole["x.tar"] + whole["x.tar"]):
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(DataRefusedError, match="damaged at byte"):
            found(str(tmp_path / "x.tar"))
    (tmp_path / "z.zip").write_bytes(whole["z.zip"].replace(b"first", b"fXrst"))
    assert found(str(tmp_path / "z.zip"))[b"a.jpg"] is Reason.UNREADABLE


def test_an_archive_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    """Bytes of another member never become this one's, also where the sizes are the same."""
    for name, pack in (("x.tar", tarred), ("x.zip", zipped)):
        (tmp_path / name).write_bytes(pack({"a.jpg": b"1", "b.jpg": b"2"}))
        source = ImageSource([str(tmp_path)], 100)
        listed = dict(InputListing(str(tmp_path / name), ["*.jpg"], source))
        (tmp_path / name).write_bytes(pack({"b.jpg": b"2", "a.jpg": b"1"}))
        assert {read(source, uri) for uri in listed.values()} == {Reason.UNREADABLE}


def test_inputs_that_are_no_archive(tmp_path: Path) -> None:
    """Missing, text with the name of one, encrypted members, a chain of fsspec's: one line and what to do."""
    for uri in (str(tmp_path / "none.zip"), "memory://archives/none.tar"):
        with pytest.raises(InputNotFoundError):
            found(uri)
    (tmp_path / "x.zip").write_text("text")
    with pytest.raises(DataRefusedError, match="the archive is damaged, or none"):
        found(str(tmp_path / "x.zip"))
    for uri in (f"zip://::file://{tmp_path}/x.zip", f"zip://a.jpg::{tmp_path}/x.zip", "tar://x"):
        with pytest.raises(ConfigurationError, match="give the archive itself"):
            found(uri)
    data = bytearray(zipped({"a.jpg": b"1"}))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert found(str(tmp_path / "x.zip")) == {b"a.jpg": Reason.UNREADABLE}


def test_many_threads_read_one_archive(tmp_path: Path) -> None:
    """Members do not disturb each other, nor does a packed tar unpack twice."""
    photos = {f"{at:03}.jpg": os.urandom(3000) for at in range(200)}
    for name, data in (
        ("x.zip", zipped(photos)),
        ("x.tar", tarred(photos)),
        ("x.tar.gz", tarred(photos, "w:gz")),
    ):
        (tmp_path / name).write_bytes(data)
        source = ImageSource([str(tmp_path)], 10_000)
        listed = dict(InputListing(str(tmp_path / name), ["*.jpg"], source))
        with ThreadPoolExecutor(8) as threads:
            contents = list(threads.map(source.read, listed.values()))
        assert dict(zip(listed, contents, strict=True)) == {
            key.encode(): value for key, value in photos.items()
        }


def test_a_run_of_an_archive(call: Call, tmp_path: Path, runs: Path) -> None:
    """Listed, read again while scoring, and in the result by the names of its members."""
    photos = {f"b/{at}.jpg": jpeg(at) for at in range(5)}
    (tmp_path / "x.zip").write_bytes(zipped(photos))
    for stage in (("preprocess", "--input", tmp_path / "x.zip"), ("score",), ("postprocess",), ("verify",)):
        outcome = call(stage[0], "--run-id", "r", *stage[1:])
        assert outcome.code == 0, outcome.err
    rows = pq.read_table(runs / "r/output/predictions.parquet").to_pylist()
    assert {row["image_id"]: row["sha256"] for row in rows} == {
        name: hashlib.sha256(data).hexdigest() for name, data in photos.items()
    }
    outcome = call("preprocess", "--run-id", "n", "--input", tmp_path / "x.zip", "--allowed-roots", runs)
    assert (outcome.code, "is outside the allowed roots" in outcome.err) == (78, True)
