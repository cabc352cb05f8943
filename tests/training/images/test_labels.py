"""labels.csv: what is written is what is read, and what cannot be meant is refused."""

from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.images.labels import Example, Labels, encode_image_id, read_labels, write_labels


def table() -> Labels:
    rows = [
        ("a.png", "x", "train", "test"),
        ('b,"c".png', "", "", "train"),
        ("d.png", "y\nz", "test", "train"),
    ]
    return Labels(
        examples=[
            Example(
                image_id=name,
                label=label,
                block=number,
                random_split=random,
                block_split=block,
                extra={"module": f"m{number}"},
            )
            for number, (name, label, random, block) in enumerate(rows)
        ],
        classes=["x", "y\nz"],
    )


def test_the_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Commas, quotes, a line break in a label, columns of the data set's own: nothing moves or is lost."""
    write_labels(tmp_path / "labels.csv", table())
    assert read_labels(tmp_path / "labels.csv", []) == table()


def test_positions_and_targets_follow_the_files(tmp_path: Path) -> None:
    """The order of the rows is the order of pixels and logits; an uncertain image is -1 and in no part."""
    write_labels(tmp_path / "labels.csv", table())
    labels = read_labels(tmp_path / "labels.csv", ["y\nz", "x"])
    assert labels.targets().tolist() == [1, -1, 0]
    assert labels.blocks().tolist() == [0, 1, 2]
    assert labels.members("block", "train").tolist() == [2]
    assert labels.members("random", "train").tolist() == [0]
    assert labels.members("random", "validation").tolist() == []


def test_a_table_without_a_column_says_what_to_run(tmp_path: Path) -> None:
    """A file of another version, or one that is empty, is made again and not guessed at."""
    path = tmp_path / "labels.csv"
    for text in ("image_id,label,block,random_split\na,x,0,train\n", ""):
        path.write_text(text)
        with pytest.raises(DataError, match=r"has no column \w+: delete it and run imagebatch-train data"):
            read_labels(path, [])


def test_labels_are_asked_for_before_training(tmp_path: Path) -> None:
    """The verb that is missing is named."""
    with pytest.raises(ConfigurationError, match="run imagebatch-train data"):
        read_labels(tmp_path / "labels.csv", [])


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("a b/ü.png", "a b/ü.png"),
        ("50%.png", "50%25.png"),
        ("=1.png", "%3D1.png"),
        ("line\nbreak.png", "line%0Abreak.png"),
        ("bad\udcff.png", "bad%FF.png"),
        ("x\u2028y\u200e.png", "x%E2%80%A8y%E2%80%8E.png"),
    ],
)
def test_image_ids_are_encoded_as_documented(name: str, encoded: str) -> None:
    """The same rule as the pipeline's, or its predictions could not be joined; the name comes back."""
    assert encode_image_id(name) == encoded
    assert unquote_to_bytes(encoded) == name.encode("utf-8", "surrogateescape")
