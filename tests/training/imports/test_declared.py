"""What is declared: presets, YAML files, flags above them, and names of classes of every kind of file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imagebatch_pixels import FILTERS, FITS
from imagebatch_training.cli import main
from imagebatch_training.configuration import CONFIG_DIR
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.imports.expected import read_expected
from imagebatch_training.imports.labels import read_labels, settle_labels
from imagebatch_training.imports.pictures import Picture, find_pictures
from imagebatch_training.imports.preprocessing import Declared, read_file, settle
from imagebatch_training.imports.request import CHOICES
from imagebatch_training.imports.truth import Answers, near_ties
from imagebatch_training.settings import Settings

PRESETS = CONFIG_DIR / "preprocessing"
SAID = {"resize": 256, "crop": 224, "mean": 0.5, "std": [0.5, 0.5, 0.5]}


def test_the_words_are_those_of_the_pixel_function() -> None:
    """Flags are written without importing torch, and are the same all the same."""
    assert CHOICES["fit"] == FITS
    assert CHOICES["interpolation"] == FILTERS


def test_later_ones_win_and_it_is_told_who_said_what() -> None:
    """A library, a file, a flag; and what nobody says is a default where there is one."""
    settled, origins = settle(
        [Declared("library", SAID), Declared("file", {"crop": 200}), Declared("flag", {"crop": 192})]
    )
    assert (settled.crop, settled.resize, settled.mean, settled.layout) == (192, 256, (0.5, 0.5, 0.5), "nchw")
    assert [origins[name] for name in ("crop", "resize", "layout")] == ["flag", "library", "default"]
    assert settle([Declared("flag", {"fit": "pad", "crop": 64, "mean": 0, "std": 1})])[0].resize == 64


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "give --resize, --crop, --mean, --std, or --preprocessing imagenet or a YAML file"),
        (SAID | {"crop": 300}, "crop 300 .* is larger than resize 256"),
        (SAID | {"crop": 0}, "crop must be a whole number of pixels: got 0"),
        (SAID | {"std": [1, 0, 1]}, "std must be three numbers above 0"),
        (SAID | {"mean": [0.5, 0.5]}, "mean must be three numbers"),
        (SAID | {"mean": float("nan")}, "mean must be three numbers"),
        (SAID | {"channel_order": "gbr"}, "channel_order must be rgb or bgr: got 'gbr'"),
        (SAID | {"padding": "pink"}, "padding must be white, black, grey or #rrggbb"),
        (SAID | {"croop": 3}, "unknown key croop: use resize, crop"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, Any], message: str) -> None:
    """With the name of who said it."""
    with pytest.raises(ConfigurationError, match=message):
        settle([Declared("some.yaml", said)])


def test_a_preset_and_a_file_are_read(tmp_path: Path) -> None:
    """A shipped one by its name, another by its path; both complete."""
    for preset in ("imagenet", "inception"):
        assert settle([read_file(preset, PRESETS)])[0].crop == 224
    path = tmp_path / "mine.yaml"
    path.write_text(
        "crop: 96\nresize: 96\nfit: squash\nmean: [0, 0, 0]\nstd: [1, 1, 1]\npixel_range: 0-255\n"
    )
    assert settle([read_file(str(path), PRESETS)])[0].pixel_range == "0-255"
    for name, text in (("broken.yaml", "a: [1"), ("list.yaml", "- 1")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError, match=name):
            read_file(str(tmp_path / name), PRESETS)
    with pytest.raises(ConfigurationError, match="a YAML file, or one of imagenet, inception"):
        read_file("imagenett", PRESETS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "ant\r\nbee\r\ncat sitting\r\n"),
        ("names.json", '["ant", "bee", "cat sitting"]'),
        ("names.json", '{"0": "ant", "2": "cat sitting", "1": ["n01", "bee"]}'),
        ("names.json", '{"cat sitting": 2, "ant": 0, "bee": 1}'),
        ("names.csv", "ant\nbee\ncat sitting\n"),
        ("names.csv", "\ufeffindex,label\n1,bee\n0,ant\n2,cat sitting\n"),
        ("names.csv", 'class,count\nant,5\nbee,6\n"cat sitting",7\n'),
    ],
)
def test_names_of_classes_are_read(name: str, text: str, tmp_path: Path) -> None:
    """Text, JSON and CSV as people have them."""
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_labels(path) == ("ant", "bee", "cat sitting")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", ""),
        ("names.txt", "ant\n\nbee\n"),
        ("names.txt", "a\x1b[31m\nb"),
        ("names.json", "{"),
        ("names.json", '{"0": "ant", "2": "bee"}'),
        ("names.json", "[1, 2]"),
        ("names.json", "3"),
        ("names.csv", "index,label\n0,ant\n0,bee\n"),
        ("names.csv", "a,b\n1,2\n"),
        ("names.csv", "index,label\n0\n"),
    ],
)
def test_what_names_no_classes_is_refused(name: str, text: str, tmp_path: Path) -> None:
    """One line with the file's name."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=f"^{name} ") as refused:
        read_labels(path)
    assert "\n" not in str(refused.value)


def test_classes_are_named_by_file_library_or_folders(tmp_path: Path) -> None:
    """In this order, and never more or fewer than there are."""
    path = tmp_path / "names.txt"
    path.write_text("x\ny\n")
    told = (("a", "b"), "library")
    assert settle_labels(path, told, ("f", "g"), 2) == (("x", "y"), "names.txt")
    assert settle_labels(None, told, ("f", "g"), 2) == told
    assert settle_labels(None, told, ("f", "g", "h"), 3)[0] == ("f", "g", "h")
    with pytest.raises(ConfigurationError, match="nobody names the model's 2 classes: give --labels FILE"):
        settle_labels(None, None, ("f",), 2)
    with pytest.raises(DataError, match=r"the model has 3 classes, names.txt names 2"):
        settle_labels(path, told, (), 3)


def test_images_are_listed_with_the_folders_of_classes(images: Path, tmp_path: Path) -> None:
    """Evenly spread where there are more than wanted; folders count only where no image lies beside them."""
    pictures, folders = find_pictures(images, 5)
    assert [picture.name for picture in pictures] == [
        f"image-{i:02}.{'jpg' if i % 2 else 'png'}" for i in (0, 4, 9, 14, 19)
    ]
    assert folders == []
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.JPG").write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_bytes(b"")
    pictures, folders = find_pictures(tmp_path, 5)
    assert [(picture.name, picture.folder) for picture in pictures] == [("a/1.JPG", "a"), ("b/1.JPG", "b")]
    assert folders == ["a", "b"]
    with pytest.raises(ConfigurationError, match="is no folder"):
        find_pictures(tmp_path / "none", 5)


PICTURES = [
    Picture(path=Path("/x/a/1.jpg"), name="a/1.jpg", folder="a"),
    Picture(path=Path("/x/2.jpg"), name="2.jpg", folder=""),
]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("image,label\na/1.jpg,ant\n2.jpg,bee\n", None),
        ("file,class,score\n1.jpg,0,0.75\n2.jpg,1,0.75\n", 0.05),
        ("path,ant,bee\n1.jpg,0.7,0.3\n2.jpg,0.3,0.7\n", 0.0),
        (
            "image_id,label_1,label_2,probability_1,probability_2\n1.jpg,ant,bee,0.7,0.3\n2.jpg,bee,ant,0.7,0.3\n",
            0.0,
        ),
    ],
)
def test_expected_answers_of_several_forms_are_read(text: str, score: float | None, tmp_path: Path) -> None:
    """Labels alone, an index and a score, a column a class, and imagebatch's own predictions.csv."""
    path = tmp_path / "expected.csv"
    path.write_text(text)
    truth = read_expected(path, PICTURES, ("ant", "bee"), 0.995)
    answers = np.array([[0.7, 0.3], [0.3, 0.7]])
    found = truth.score(answers)
    assert (found.agreeing, found.images) == (2, 2)
    assert found.moved == (None if score is None else pytest.approx(score))
    assert truth.holds(answers) == (score != 0.05)
    assert not truth.holds(answers[::-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a column image"),
        ("image,colour\n1.jpg,red\n", "must have a column image"),
        (
            "image,label\n7.jpg,ant\n",
            "tells of none of the 2 images: its image is '7.jpg', a file here is 'a/1.jpg'",
        ),
        ("image,label\n1.jpg\n", "'' is none of the model's 2 classes"),
        ("image,label\n1.jpg,cat\n", "'cat' is none of the model's 2 classes, such as 'ant'"),
        (
            "image,label,probability\n1.jpg,ant,3.5\n",
            "'3.5' is no probability, 0 to 1: write them after the softmax",
        ),
    ],
)
def test_expected_answers_that_tell_nothing_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """With what is missing, or what does not fit."""
    path = tmp_path / "expected.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_expected(path, PICTURES, ("ant", "bee"), 0.995)


def test_a_name_that_two_images_have_is_nobodys(tmp_path: Path) -> None:
    """A file's name alone tells of one image; of two it would tell one the other's answer."""
    path = tmp_path / "expected.csv"
    path.write_text("image,label\n1.jpg,ant\n2.jpg,bee\n")
    twin = Picture(path=Path("/x/b/1.jpg"), name="b/1.jpg", folder="b")
    truth = read_expected(path, [*PICTURES, twin], ("ant", "bee"), 0.995)
    assert truth.classes.tolist() == [-1, 1, -1]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("image,label\n1.jpg,crane\n2.jpg,bee\n", [-1, 2]),
        ("image,label\n1.jpg,1\n2.jpg,bee\n", [1, 2]),
        ("image,label,probability\n1.jpg,crane,0.9\n2.jpg,bee,0.9\n", [-1, 2]),
        ("image,crane,bee\n1.jpg,0.9,0.1\n2.jpg,0.1,0.9\n", [-1, 2]),
    ],
)
def test_a_name_that_two_classes_have_tells_of_none(text: str, classes: list[int], tmp_path: Path) -> None:
    """As ImageNet's two cranes: their index does, and the other images prove the archive."""
    path = tmp_path / "expected.csv"
    path.write_text(text)
    truth = read_expected(path, PICTURES, ("crane", "crane", "bee"), 0.995)
    assert truth.classes.tolist() == classes
    assert truth.holds(np.array([[0.0, 0.9, 0.1], [0.05, 0.05, 0.9]]))


def test_the_command_imports(
    onnx: Path, images: Path, labels: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overrides may stand behind flags, and a refusal is one line with its exit code."""
    paths = [f"paths.{name}='{getattr(settings.paths, name)}'" for name in ("model_store", "handlers")]
    argv = ["import", str(onnx), "--labels", str(labels), "--images", str(images), "--crop", "32", "--mean"]
    argv += ["0.485,0.456,0.406", "--std", "0.229,0.224,0.225", *paths]
    assert main(argv) == 78
    assert "give --resize" in capsys.readouterr().err.splitlines()[-1]
    assert main([*argv, "--resize", "40"]) == 0
    text = capsys.readouterr().out
    assert "images: the same class on 24 of 24" in text
    assert f"{settings.paths.model_store}/small.mar, content sha256:" in text
    assert main(["import", str(onnx), "--expect", "x.csv", *paths]) == 78
    assert "give their folder by --images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["import", str(onnx), "--mean", "a,b", *paths])
    assert "'a,b' is not three numbers" in capsys.readouterr().err


def test_a_near_tie_is_no_disagreement() -> None:
    """Two classes that are as good as each other may change places; clear ones, or unknown ones, may not."""
    wanted = np.array([[0.51, 0.49], [0.6, 0.4], [np.nan, 0.5]])
    other = np.array([[0.4, 0.6], [0.4, 0.6], [0.6, 0.4]])
    assert near_ties(wanted, other).tolist() == [True, False, False]
    truth = Answers("x", np.array([0, 0]), wanted[:2], 0.995)
    assert truth.score(other[:2]).ties == 1
    assert truth.holds(np.array([[0.495, 0.505], [0.6, 0.4]]))
    assert not truth.holds(np.array([[0.51, 0.49], [0.4, 0.6]]))
