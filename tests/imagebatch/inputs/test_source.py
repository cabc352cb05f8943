"""Listing and reading images, confined."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from imagebatch.contracts.records import LeftOut, Reason
from imagebatch.errors import InputNotFoundError, StorageError
from imagebatch.inputs import source
from imagebatch.inputs.listing import InputListing
from imagebatch.inputs.names import to_uri
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError


@pytest.fixture(params=["held", "followed"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux's way to find a file, and that of other systems, refuse the same."""
    if request.param == "followed":
        monkeypatch.setattr(source, "_HELD", "")
        monkeypatch.setattr(source, "_NO_LINK", os.O_NOFOLLOW)


def found(
    folder: Path | str, include: str = "*.jpg", roots: tuple[Path, ...] = ()
) -> tuple[set[bytes], dict[bytes, LeftOut]]:
    """Names of the listed files, and reasons of the others."""
    others: list[tuple[bytes, LeftOut]] = []
    source = ImageSource([str(root) for root in roots] or [str(folder)], 1000)
    listing = InputListing(
        str(folder), include.split(","), source, lambda name, reason: others.append((name, reason))
    )
    names = [name for name, _ in listing]
    assert len(names) == len(set(names))
    assert len(others) == len(dict(others))
    return set(names), dict(others)


def listed(folder: Path, *roots: Path) -> dict[bytes, str]:
    source = ImageSource([str(root) for root in roots or (folder,)], 1000)
    return dict(InputListing(str(folder), ["*.jpg"], source))


def refusal(source: ImageSource, path: Path) -> Reason:
    with pytest.raises(ImageUnavailableError) as caught:
        source.read(to_uri(str(path)))
    return caught.value.reason


def test_lists_matching_names_below_and_tells_of_the_others(tmp_path: Path) -> None:
    """Sub-folders are entered, patterns ignore case, other files are left out with a reason."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x.jpg", "a/Y.JPG", "a/b/z.jpg", "notes.txt", "a/labels.csv"):
        (tmp_path / name).write_bytes(b"1")
    names, others = found(tmp_path)
    assert names == {b"x.jpg", b"a/Y.JPG", b"a/b/z.jpg"}
    assert others == dict.fromkeys([b"notes.txt", b"a/labels.csv"], LeftOut.NO_IMAGE_SUFFIX)


def test_names_survive_byte_for_byte(tmp_path: Path) -> None:
    """A name that is not UTF-8 is listed, and its URI reads the same file."""
    name = b"\xff\xfe \n%.jpg"
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:  # noqa: PTH118, PTH123 (bytes names)
        stream.write(b"pixels")
    source = ImageSource([str(tmp_path)], 1000)
    ((found, uri),) = InputListing(str(tmp_path), ["*.jpg"], source)
    assert found == name
    assert source.read(uri) == b"pixels"


def test_a_single_image_is_an_input(tmp_path: Path) -> None:
    """`--input` may name one file."""
    (tmp_path / "x.jpg").write_bytes(b"1")
    assert set(listed(tmp_path / "x.jpg")) == {b"x.jpg"}


def test_missing_folder(tmp_path: Path) -> None:
    """One line that names the folder and says what to give."""
    with pytest.raises(InputNotFoundError, match="No such file or directory; give an existing folder"):
        listed(tmp_path / "nothing")


def test_linked_folders_are_entered_inside_the_roots_only(tmp_path: Path) -> None:
    """A link out, or up into a loop, is one entry that will be rejected: never silence."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "real" / "x.jpg").write_bytes(b"1")
    (outside / "y.jpg").write_bytes(b"1")
    (inside / "linked").symlink_to(outside)
    (inside / "real" / "loop").symlink_to(inside)
    assert set(listed(inside)) == {b"real/x.jpg", b"linked", b"real/loop"}
    assert set(listed(inside, inside, outside)) == {b"real/x.jpg", b"linked/y.jpg", b"real/loop"}


def test_a_link_that_leads_to_itself_is_one_file(tmp_path: Path) -> None:
    """With an image's name it will be rejected, with another it is left out; nothing else is disturbed."""
    (tmp_path / "x.jpg").write_bytes(b"1")
    for name in ("loop", "loop.jpg"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "there.jpg").symlink_to("back.jpg")
    (tmp_path / "back.jpg").symlink_to("there.jpg")
    assert found(tmp_path) == (
        {b"x.jpg", b"loop.jpg", b"there.jpg", b"back.jpg"},
        {b"loop": LeftOut.NOT_A_FILE},
    )
    source = ImageSource([str(tmp_path)], 10)
    assert refusal(source, tmp_path / "loop.jpg") is Reason.UNREADABLE
    with pytest.raises(InputNotFoundError, match="Too many levels of symbolic links"):
        found(tmp_path / "loop")


def test_where_a_link_leads_is_told_of_links_inside_only(tmp_path: Path) -> None:
    """Whoever sees the folder sees its links; a list must not find out what lies elsewhere."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
    (outside / "target").write_bytes(b"1")
    for link in (inside / "x.jpg", outside / "y.jpg"):
        link.symlink_to(outside / "target")
    source = ImageSource([str(inside)], 10)
    details = []
    for link in (inside / "x.jpg", outside / "y.jpg"):
        with pytest.raises(ImageUnavailableError) as caught:
            source.read(to_uri(str(link)))
        details.append(caught.value.detail)
    assert details == [
        f"links to {outside}/target; see --allowed-roots",
        "leads outside; see --allowed-roots",
    ]


def test_refusals(tmp_path: Path) -> None:
    """Each kind of thing that is no readable image file inside the roots has a reason."""
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (inside / "big.jpg").write_bytes(b"12345678901")
    (inside / "way-out.jpg").symlink_to(tmp_path / "secret.jpg")
    (inside / "dangling.jpg").symlink_to("nothing")
    (inside / "loop.jpg").symlink_to("loop.jpg")
    (inside / "folder.jpg").mkdir()
    os.mkfifo(inside / "fifo.jpg")
    source = ImageSource([str(inside)], 10)
    assert {path.name: refusal(source, path) for path in inside.iterdir()} == {
        "big.jpg": Reason.TOO_MANY_BYTES,
        "way-out.jpg": Reason.OUTSIDE_ALLOWED_ROOTS,
        "dangling.jpg": Reason.NOT_FOUND,
        "loop.jpg": Reason.UNREADABLE,
        "folder.jpg": Reason.NOT_A_FILE,
        "fifo.jpg": Reason.NOT_A_FILE,
    }
    assert refusal(source, inside / ".." / "secret.jpg") is Reason.OUTSIDE_ALLOWED_ROOTS


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9/x.jpg",
        "memory://bucket/../other/x.jpg",
        "memory://bucket-2/x.jpg",
        "memory://bucket/x.jpg::file:///etc/passwd",
        "file:///etc/passwd",
    ],
)
def test_uris_outside_the_roots_are_refused(uri: str) -> None:
    """A prefix of a name, a chained URI, another scheme: none leads out of the roots, and none is opened."""
    with pytest.raises(ImageUnavailableError) as caught:
        ImageSource(["memory://bucket"], 10).read(uri)
    assert caught.value.reason is Reason.OUTSIDE_ALLOWED_ROOTS


def test_remote_images_are_listed_and_read() -> None:
    """Any fsspec file system works; here the one in memory."""
    import fsspec  # noqa: PLC0415 (only this test)

    store = fsspec.filesystem("memory")
    store.pipe({"/bucket/a/x.jpg": b"1", "/bucket/y.jpg": b"22", "/bucket/z.txt": b"3"})
    source = ImageSource(["memory://bucket"], 1)
    found = dict(InputListing("memory://bucket", ["*.jpg"], source))
    assert set(found) == {b"a/x.jpg", b"y.jpg"}
    assert source.read("memory://bucket/a/x.jpg") == b"1"
    with pytest.raises(ImageUnavailableError, match="too_many_bytes"):
        source.read("memory://bucket/y.jpg")


def test_no_message_about_an_archive_shows_a_signature() -> None:
    """Who reads a log could open it: a store without a client here stands for all that fails."""
    source = ImageSource(["nowhere://c"], 1000)
    with pytest.raises(StorageError, match=r"cannot read nowhere://c/a\.zip: ") as caught:
        source.read("zip:nowhere://c/a.zip?sig=5ec4e7!/x.jpg?at=0&size=3")
    assert "5ec4e7" not in str(caught.value)
