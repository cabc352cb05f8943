"""Which files are images to score, and why the others are not: the same on a disk and in a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from imagebatch.contracts.records import LeftOut
from imagebatch.errors import StorageError
from imagebatch.inputs.left_out import NameFilter, is_snapshot
from imagebatch.inputs.listing import InputListing
from imagebatch.inputs.names import to_uri
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError

_TAKEN = """
    a.jpg b.JPEG c.jfif d.jpe e.pjpeg f.mpo g.jpg_large k.jif l.png m.webp n.bmp o.tif p.TIFF q.gif
    folder/x.jpg thumbs/x.jpg folder.jpg/x.png _SUCCESS/x.jpg
"""
TAKEN = _TAKEN.split()
NO_IMAGE_SUFFIX = [
    "h.jpg.1",
    "no_suffix",
    "readme.txt",
    "x.heics",
    "jpg",
    "x.jpg ",
    "dir.jpg/x",
    "a~",
    "x.jpg~",
]
_SIDE_FILES = """
    ._IMG_0001.jpg batch/._a.jpg __MACOSX/batch/._a.jpg __MACOSX/a.jpg @eaDir/IMG_0.jpg/SYNOFILE_THUMB_M.jpg
    .ipynb_checkpoints/a-checkpoint.jpg Thumbs.db folder/THUMBS.DB .DS_Store desktop.ini
    .thumbnails/large/1.png #recycle/a.jpg @Recycle/a.jpg .Trashes/501/a.jpg
    .Trash-1000/files/a.jpg $RECYCLE.BIN/a.jpg lost+found/a.jpg .Spotlight-V100/x
    .git/annex/objects/a.jpg .dvc/cache/00/ab.jpg ~$list.jpg .nfs0000000001.jpg x_$folder$
    .snapshot/hourly.0/a.jpg .stversions/a.jpg
"""
SIDE_FILES = _SIDE_FILES.split()
HIDDEN = [".hidden.jpg", ".private/a.jpg", "a/.b/c/d.jpg", ".txt", ".jpg"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (TAKEN, None),
        (NO_IMAGE_SUFFIX, LeftOut.NO_IMAGE_SUFFIX),
        ([*SIDE_FILES, "System Volume Information/a.jpg", "Icon\r", "folder/"], LeftOut.SIDE_FILE),
        (HIDDEN, LeftOut.HIDDEN),
    ],
)
def test_names_as_people_have_them(names: list[str], reason: LeftOut | None) -> None:
    """What browsers, phones, file systems and programs call their files, with the default patterns."""
    decide = NameFilter(["images"])
    assert {name: decide.of_key(name) for name in names} == dict.fromkeys(names, reason)


def test_patterns_take_more_or_less() -> None:
    """A narrower pattern tells images that it misses from others; `*` takes all but side and hidden files."""
    narrow = NameFilter([" *.PNG", ""])
    assert [narrow.of_file(name) for name in ("a.png", "a.jpg", "a.txt")] == [
        None,
        LeftOut.NOT_INCLUDED,
        LeftOut.NO_IMAGE_SUFFIX,
    ]
    everything = NameFilter(["*"])
    for names, reason in [
        (TAKEN + NO_IMAGE_SUFFIX, None),
        (SIDE_FILES, LeftOut.SIDE_FILE),
        (HIDDEN, LeftOut.HIDDEN),
    ]:
        assert {everything.of_key(name) for name in names} == {reason}
    more = NameFilter(["images", "*.jpg.?"])
    assert [more.of_file(name) for name in ("a.jpg", "h.jpg.1")] == [None, None]
    hidden = NameFilter(["*.jpg", ".*.jpg"])
    assert [hidden.of_key(name) for name in (".a.jpg", ".b/c.jpg", "._a.jpg")] == [
        None,
        None,
        LeftOut.SIDE_FILE,
    ]
    assert NameFilter([","]).of_file("a.jpg") is LeftOut.NOT_INCLUDED


# Parts of names that decide something, beside any others.
_TELLING = "a b.jpg c.PNG d.heic e .f .g.jpg ._h.jpg thumbs.db @eaDir __MACOSX .git x.jpg.1 \udcff.jpg"
_NAMES = st.sampled_from(_TELLING.split()) | st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6
).filter(lambda name: name not in {".", ".."})
_KINDS = st.sampled_from(["file", "file", "file", "fifo", "nowhere", "itself", "up", "out"])
_TREES = st.dictionaries(st.lists(_NAMES, min_size=1, max_size=4).map(tuple), _KINDS, max_size=12)


def _make(root: Path, elsewhere: Path, tree: dict[tuple[str, ...], str]) -> None:
    """Makes files and links below a folder; what does not fit, or would lie below a link, is passed over."""
    for parts, kind in tree.items():
        folders = [root.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
        path = root.joinpath(*parts)
        if os.path.lexists(path) or any(os.path.lexists(one) and not _plain(one) for one in folders):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            path.write_bytes(b"1")
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            targets = {"nowhere": "nothing here", "itself": path.name, "up": "..", "out": elsewhere}
            path.symlink_to(targets[kind])


def _plain(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _walked(folder: str) -> list[str]:
    """Every file below a folder, links among them; of a folder of snapshots its name alone."""
    there = []
    for above, folders, files in os.walk(folder):
        links = [one for one in folders if Path(above, one).is_symlink()]
        snapshots = [one for one in folders if is_snapshot(one) and one not in links]
        folders[:] = [one for one in folders if one not in snapshots]
        names = [*files, *links, *(f"{one}/" for one in snapshots)]
        there += [f"{os.path.relpath(above, folder)}/{name}" for name in names]
    return [path.removeprefix("./") for path in there]


@given(_TREES)
@example(
    {("a", "b.jpg"): "file", ("a", "up"): "up", ("a", ".git", "c.jpg"): "file", ("thumbs.db",): "nowhere"}
)
def test_every_file_is_listed_or_left_out_for_a_reason(tree: dict[tuple[str, ...], str]) -> None:
    """Whatever lies in a folder: an independent walk finds exactly the files that are told of, each once."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        Path(elsewhere, "x.jpg").write_bytes(b"1")
        _make(Path(folder), Path(elsewhere), tree)
        there = _walked(folder)
        told: list[tuple[bytes, LeftOut | None]] = []
        listing = InputListing(
            folder, ["images"], ImageSource([folder], 10), lambda name, reason: told.append((name, reason))
        )
        told += [(name, None) for name, _ in listing]
        assert sorted(name for name, _ in told) == sorted(map(os.fsencode, there))
        decide = NameFilter(["images"])
        for name, reason in told:
            path = Path(folder, os.fsdecode(name))
            if reason is LeftOut.NOT_A_FILE:
                assert not path.is_file()
            elif not (path.is_symlink() and path.is_dir()):  # a folder that is not entered: a reject
                assert reason is decide.of_key(os.fsdecode(name))


def test_a_bucket_is_read_by_the_same_rules() -> None:
    """The same names, as keys of a store: each is listed or left out, as on a disk."""
    keys = [*TAKEN, *NO_IMAGE_SUFFIX, *SIDE_FILES, *HIDDEN]
    store = fsspec.filesystem("memory")
    store.pipe({f"/left-out/{key}": b"1" for key in keys})
    told: dict[bytes, LeftOut | None] = {}
    source = ImageSource(["memory://left-out"], 10)
    listing = InputListing("memory://left-out", ["images"], source, told.__setitem__)
    told |= {name: None for name, _ in listing}
    decide = NameFilter(["images"])
    assert told == {key.encode(): decide.of_key(key) for key in keys}
    (alone,) = InputListing("memory://left-out/readme.txt", ["images"], source)
    assert alone == (b"readme.txt", "memory://left-out/readme.txt")


def test_folders_may_lie_deeper_than_python_calls(tmp_path: Path) -> None:
    """1,100 folders inside one another are walked; where the system takes no longer path is one reject."""
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for depth in range(2060):
            for name in ("x.jpg", "y.txt") if depth in {0, 1100} else ():
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here))
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    others: dict[bytes, LeftOut] = {}
    source = ImageSource([str(tmp_path)], 10)
    names = {name for name, _ in InputListing(str(tmp_path), ["*.jpg"], source, others.__setitem__)}
    deep = b"d/" * 1100
    assert others == dict.fromkeys([b"y.txt", deep + b"y.txt"], LeftOut.NO_IMAGE_SUFFIX)
    (too_deep,) = names - {b"x.jpg", deep + b"x.jpg"}
    assert set(too_deep.split(b"/")) == {b"d"}
    with pytest.raises(ImageUnavailableError, match="unreadable: File name too long"):
        source.read(to_uri(str(tmp_path / os.fsdecode(too_deep))))
    subprocess.run(["/bin/rm", "-rf", tmp_path / "d"], check=True)  # deeper than Python's own tools go


def test_a_folder_that_cannot_be_listed_now_is_tried_again(tmp_path: Path) -> None:
    """Too many open files, which passes: nothing is missing. If it stays, the storage has failed."""
    program = """
import os, resource, sys, threading
from imagebatch.errors import StorageError
from imagebatch.inputs.listing import InputListing
from imagebatch.inputs.source import ImageSource
listing = InputListing(sys.argv[1], ["images"], ImageSource([sys.argv[1]], 10))
held = [os.dup(0) for _ in range(20)]
resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    list(listing)
except StorageError as error:
    print(error)
threading.Timer(0.3, lambda: [os.close(one) for one in held]).start()
print(sorted(name.decode() for name, _ in listing))
"""
    for name in ("a.jpg", "below/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    failed, found = done.stdout.splitlines()
    assert failed.startswith(f"cannot list {tmp_path}: Too many open files")
    assert found == "['a.jpg', 'below/b.jpg']"


def test_a_storage_that_fails_is_no_fault_of_the_image(tmp_path: Path) -> None:
    """An I/O error is tried again, and may pass; if it stays, the storage has failed: no image is refused."""
    picture = tmp_path / "x.jpg"
    picture.symlink_to("/proc/self/mem")  # whose first byte cannot be read: the kernel says EIO
    source = ImageSource([str(tmp_path), "/proc"], 1000)
    with pytest.raises(StorageError, match=r"x.jpg: Input/output error; check the disk or share"):
        source.read(to_uri(str(picture)))

    def heal() -> None:
        (tmp_path / "good").write_bytes(b"pixels")
        (tmp_path / "good").replace(picture)

    healing = threading.Timer(0.2, heal)
    healing.start()
    assert source.read(to_uri(str(picture))) == b"pixels"
    healing.join()
