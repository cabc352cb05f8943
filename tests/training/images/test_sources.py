"""Folders and CSV files as people have them: hostile names, other encodings, rows that end early."""

import csv
import os
from pathlib import Path

import pytest
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.images.data import ensure_data
from imagebatch_training.images.sources import read_source
from imagebatch_training.settings import Data

from tests.training.shapes import draw, small_settings


def folder_of(root: Path, *names: str) -> Data:
    """Touch files below a folder and give the settings that read it."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return Data(kind="image_folder", images=str(root))


def csv_of(root: Path, text: str | bytes, *names: str, group: str = "") -> Data:
    """Write a CSV of labels over files that exist and give the settings that read it."""
    folder_of(root / "images", *names)
    path = root / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Data(kind="csv", images=str(root / "images"), csv=str(path), group_column=group)


def test_the_folder_is_the_class_however_deep_the_image_lies(tmp_path: Path) -> None:
    """Sorted by name, whatever the file system's order; images only, whatever the case of their ending."""
    names = ["b/2.PNG", "b/deep/er/1.jpg", "a/9.tiff", "a/notes.txt", ".cache/x.png", "loose.png"]
    found = read_source(folder_of(tmp_path, *names))
    assert [(e.image_id, e.label) for e in found.examples] == [
        ("a/9.tiff", "a"),
        ("b/2.PNG", "b"),
        ("b/deep/er/1.jpg", "b"),
    ]
    assert (list(found.groups), found.whole) == (["a", "b", "b"], False)


def test_hostile_file_names_come_back_as_the_same_files(tmp_path: Path) -> None:
    """Not UTF-8, a line break, a formula, quotes: through labels.csv and back to the bytes on disk."""
    hostile = [
        b"bad\xff.png",
        b"line\nbreak.png",
        b"=1+1.png",
        b'a,"b".png',
        b"50%25.png",
        " \u202e.png".encode(),
    ]
    root = tmp_path / "images"
    for number, label in enumerate(("bright", "dark")):
        (root / label).mkdir(parents=True)
        for index, name in enumerate(hostile):
            draw(label, 10 * number + index).save(root / label / "drawn.png")
            os.rename(root / label / "drawn.png", os.fsencode(root / label) + b"/" + name)  # noqa: PTH104 - bytes
    data = ensure_data(small_settings(tmp_path, root, "data.block_size=2"))
    listed = {os.fsencode(example.path(data.images)) for example in data.labels.examples}
    assert listed == {
        os.fsencode(root / label) + b"/" + name for label in ("bright", "dark") for name in hostile
    }
    with data.csv.open(encoding="utf-8", newline="") as file:
        ids = [row["image_id"] for row in csv.DictReader(file)]
    assert len(ids) == 12
    assert all(name.isprintable() for name in ids)


def test_a_class_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A folder's name that is not UTF-8 could be written to no table of labels."""
    settings = folder_of(tmp_path, "sound/1.png")
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102 - a path of bytes
    with pytest.raises(DataError, match=r"folder 'caf\\udce9' is not UTF-8 .*: rename it"):
        read_source(settings)


def test_a_csv_with_quotes_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """As spreadsheets write it: BOM, CRLF, quoted fields, columns that nobody asked for."""
    text = '\ufeffimage,label,note\r\n"a, b.png","x","said ""no"""\r\nc.png,,\r\n'
    found = read_source(csv_of(tmp_path, text, "a, b.png", "c.png"))
    assert [(e.image_id, e.label) for e in found.examples] == [("a, b.png", "x"), ("c.png", "")]
    assert not found.whole


def test_a_group_column_makes_whole_groups(tmp_path: Path) -> None:
    """The column that says what belongs together, in the order of the rows."""
    text = "image,label,module\n1.png,x,m2\n2.png,y,m1\n3.png,x,m2\n"
    found = read_source(csv_of(tmp_path, text, "1.png", "2.png", "3.png", group="module"))
    assert (list(found.groups), found.whole) == (["m2", "m1", "m2"], True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label,module\n1.png,x,m\n2.png,x\n", r"row 3: no value for 'module'"),
        ("label,module,image\nx,m,1.png\ny,m\n", r"row 3: no value for 'image'"),
        ("image,label,module\n1.png\n", r"row 2: no value for 'label': the row has too few columns"),
    ],
)
def test_a_row_that_ends_early_is_named(tmp_path: Path, text: str, message: str) -> None:
    """It is not taken for an uncertain image, nor for a group of its own, and is no traceback."""
    with pytest.raises(DataError, match=message):
        read_source(csv_of(tmp_path, text, "1.png", "2.png", group="module"))


def test_a_csv_in_another_encoding_is_one_line(tmp_path: Path) -> None:
    """A spreadsheet's cp1252 is refused with what to do, before a name is misread."""
    with pytest.raises(DataError, match=r"labels\.csv is not UTF-8: save it as a CSV in UTF-8"):
        read_source(csv_of(tmp_path, "image,label\nk\xe4fer.png,x\n".encode("cp1252"), "1.png"))


def test_an_empty_csv_and_a_header_alone_are_refused(tmp_path: Path) -> None:
    """No column, or no image: each says which."""
    with pytest.raises(DataError, match="has no column 'image'"):
        read_source(csv_of(tmp_path, ""))
    with pytest.raises(DataError, match="no images found"):
        read_source(csv_of(tmp_path, "image,label\n"))


def test_a_csv_that_is_missing_names_its_setting(tmp_path: Path) -> None:
    """`data.csv` is what to correct."""
    settings = csv_of(tmp_path, "image,label\n")
    Path(settings.csv).unlink()
    with pytest.raises(ConfigurationError, match=r"correct data\.csv"):
        read_source(settings)
