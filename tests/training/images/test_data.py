import csv
import importlib.util
import runpy
from pathlib import Path

import pytest
from imagebatch_training.cli import main
from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.errors import DataError
from imagebatch_training.images.data import ensure_data
from imagebatch_training.images.labels import PARTS, SPLITS
from imagebatch_training.images.sources import SUFFIXES, images_below
from imagebatch_training.settings import Settings

from tools.paths import ROOT


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The shipped example, made from the installed package."""
    folder = tmp_path_factory.mktemp("cells")
    settings = load_settings(CONFIG_DIR, [f"paths.data='{folder}'"])
    ensure_data(settings)
    return settings


def settings_for(folder: Path, *overrides: str) -> Settings:
    return load_settings(CONFIG_DIR, [f"paths.data='{folder}'", *overrides])


def test_the_example_has_all_cells_with_their_original_bytes(cells: Settings) -> None:
    """2,624 photographs, 2,223 of them labelled, and a copy is the package's file byte for byte."""
    data = ensure_data(cells)
    assert data.summary() == {
        "images": 2624,
        "blocks": 44,
        "mono-defective": 313,
        "mono-sound": 588,
        "poly-defective": 402,
        "poly-sound": 920,
        "uncertain": 401,
    }
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    assert spec.origin is not None
    original = Path(spec.origin).parent / "data/images/cell1234.png"
    assert (data.images / "cell1234.png").read_bytes() == original.read_bytes()


def test_labels_csv_has_the_documented_columns(cells: Settings) -> None:
    """The first line and the first cell of labels.csv are what other tools read."""
    with ensure_data(cells).csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "image_id",
        "probability",
        "type",
        "label",
        "block",
        "random_split",
        "block_split",
    ]
    assert [rows[0][name] for name in ("image_id", "probability", "type", "label")] == [
        "cell0001.png",
        "1.0000",
        "mono",
        "mono-defective",
    ]
    uncertain = [row for row in rows if row["probability"] in ("0.3333", "0.6667")]
    assert len(uncertain) == 401
    assert all(row["label"] == "" and row["random_split"] == "" for row in uncertain)


def test_every_labelled_cell_is_in_exactly_one_part_of_each_split(cells: Settings) -> None:
    """The parts are disjoint, complete, and each has every class."""
    labels = ensure_data(cells).labels
    for split in ("random", "block"):
        parts = [set(labels.members(split, part).tolist()) for part in ("train", "validation", "test")]
        assert sum(len(part) for part in parts) == 2223
        assert len(set.union(*parts)) == 2223
        for part in parts:
            assert {labels.examples[i].label for i in part} == set(labels.classes)


def test_no_block_is_on_two_sides(cells: Settings) -> None:
    """Blocks are runs of neighbouring files of one kind of cell, and each lies in one part only."""
    labels = ensure_data(cells).labels
    numbers = labels.blocks()
    assert (numbers[1:] - numbers[:-1]).min() >= 0
    for block in set(numbers.tolist()):
        members = [example for example in labels.examples if example.block == block]
        assert len({example.block_split for example in members}) == 1
        assert len({example.extra["type"] for example in members}) == 1
        assert 40 <= len(members) <= 80


def test_a_second_call_changes_nothing(cells: Settings) -> None:
    """Idempotent: the file is not even written again; a damaged one is."""
    path = ensure_data(cells).csv
    before = path.stat().st_mtime_ns, path.read_bytes()
    ensure_data(cells)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    path.write_bytes(before[1] + b"x")
    ensure_data(cells)
    assert path.read_bytes() == before[1]


def test_another_seed_gives_other_splits(cells: Settings, tmp_path: Path) -> None:
    """The split is drawn, and the draw is in the configuration."""
    other = ensure_data(settings_for(tmp_path, "data.seed=1"))
    first = ensure_data(cells).labels
    assert [e.block_split for e in other.labels.examples] != [e.block_split for e in first.examples]


def test_a_folder_per_class_takes_the_examples_place(shapes: Path, tmp_path: Path) -> None:
    """conf/data/image-folder.yaml needs nothing but the folder: classes and image ids come from it."""
    settings = settings_for(tmp_path, "data=image-folder", f"data.images='{shapes}'", "data.block_size=3")
    labels = ensure_data(settings).labels
    assert list(labels.classes) == ["bright", "dark", "striped"]
    assert labels.examples[0].image_id == "bright/000.png"
    assert len(labels.examples) == 36
    assert labels.examples[0].path(shapes).is_file()


def test_every_format_that_is_scored_can_be_trained_on() -> None:
    """The same names of files are images to both; another list would leave some out of a training unsaid."""
    formats = runpy.run_path(str(ROOT / "pipeline_image/src/imagebatch/inputs/formats.py"))
    assert set(SUFFIXES) == {suffix for suffixes in formats["SUFFIXES"].values() for suffix in suffixes}


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """What systems keep beside people's files has an image's suffix, too."""
    for name in ("a/1.jpg", "a/._1.jpg", "a/.thumbnails/1.jpg", "a/deep/2.HEIC"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [file.relative_to(tmp_path).as_posix() for file in images_below(tmp_path)]
    assert found == ["a/1.jpg", "a/deep/2.HEIC"]


def given_folders(shapes: Path, root: Path) -> Path:
    """The drawings as data sets are published: a folder for each part above the classes."""
    for file in sorted(shapes.rglob("*.png")):
        number = int(file.stem)
        part = "Test" if number % 4 == 0 else "val" if number % 4 == 1 else "train"
        target = root / part / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file)
    return root


def test_folders_of_a_given_split_are_no_classes(shapes: Path, tmp_path: Path) -> None:
    """train/, val/ and test/ above the classes are the split, whatever their case."""
    root = given_folders(shapes, tmp_path / "given")
    labels = ensure_data(settings_for(tmp_path, "data=image-folder", f"data.images='{root}'")).labels
    assert list(labels.classes) == ["bright", "dark", "striped"]
    parts = {"Test": "test", "val": "validation", "train": "train"}
    for example in labels.examples:
        assert example.block_split == example.random_split == parts[example.image_id.split("/")[0]]


def test_a_column_of_a_csv_is_the_split(shapes: Path, tmp_path: Path) -> None:
    """Named by data.split_column; what is no part is refused with its row."""
    files = sorted(file.relative_to(shapes).as_posix() for file in shapes.rglob("*.png"))
    rows = [
        f"{name},{name.split('/')[0]},{('train', 'Train', 'dev', 'TEST')[i % 4]}"
        for i, name in enumerate(files)
    ]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["image,label,part", *rows]) + "\n")
    overrides = ["data=csv", f"data.images='{shapes}'", f"data.csv='{path}'", "data.split_column=part"]
    labels = ensure_data(settings_for(tmp_path, *overrides)).labels
    assert [e.block_split for e in labels.examples[:4]] == ["train", "train", "validation", "test"]
    path.write_text(path.read_text().replace("dev", "holdout", 1))
    with pytest.raises(DataError, match="row 4: 'holdout' is no part of a split: it is one of train"):
        ensure_data(settings_for(tmp_path, *overrides))


def test_a_flat_folder_says_what_is_missing(shapes: Path, tmp_path: Path) -> None:
    """Images without folders have no classes."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, file in enumerate(shapes.rglob("*.png")):
        (flat / f"{index}.png").symlink_to(file)
    with pytest.raises(
        DataError, match=r"36 images and no folders: put each image into a folder named after its"
    ):
        ensure_data(settings_for(tmp_path, "data=image-folder", f"data.images='{flat}'"))


@pytest.mark.parametrize("kind", ["folders", "csv"])
def test_files_that_are_sorted_by_class_lose_none(shapes: Path, tmp_path: Path, kind: str) -> None:
    """As folders are, and most lists: every class is in every part of both splits."""
    overrides = ["data=image-folder", f"data.images='{shapes}'"]
    if kind == "csv":
        names = sorted(file.relative_to(shapes).as_posix() for file in shapes.rglob("*.png"))
        path = tmp_path / "labels.csv"
        path.write_text("image,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names))
        overrides = ["data=csv", f"data.images='{shapes}'", f"data.csv='{path}'"]
    labels = ensure_data(settings_for(tmp_path, *overrides)).labels
    for split in SPLITS:
        for part in PARTS:
            found = {labels.examples[i].label for i in labels.members(split, part)}
            assert found == {"bright", "dark", "striped"}, (split, part)


def write_csv(path: Path, shapes: Path, header: str = "file,kind,module") -> Path:
    names = sorted(file.relative_to(shapes).as_posix() for file in shapes.rglob("*.png"))
    lines = [f"{name},{name.split('/')[0]},m{int(name[-7:-4]) % 6}" for name in names]
    path.write_text("\n".join([header, *lines[:-1], lines[-1].replace("striped,", ",")]) + "\n")
    return path


def csv_overrides(path: Path, shapes: Path) -> list[str]:
    columns = ["data.image_column=file", "data.label_column=kind", "data.group_column=module"]
    return ["data=csv", f"data.images='{shapes}'", f"data.csv='{path}'", *columns]


def test_a_csv_of_labels_takes_the_examples_place(shapes: Path, tmp_path: Path) -> None:
    """conf/data/csv.yaml: named columns, an empty label means uncertain, and no group is on two sides."""
    path = write_csv(tmp_path / "labels.csv", shapes)
    labels = ensure_data(settings_for(tmp_path, *csv_overrides(path, shapes))).labels
    assert len([example for example in labels.examples if not example.label]) == 1
    assert len({example.block for example in labels.examples}) == 6
    for name in range(6):
        members = [e for e in labels.examples if int(e.image_id[-7:-4]) % 6 == name]
        assert len({example.block_split for example in members}) == 1


def test_a_csv_that_does_not_fit_is_one_clear_line(shapes: Path, tmp_path: Path) -> None:
    """A wrong column, a missing image and a repeated one are named with their row."""
    path = write_csv(tmp_path / "labels.csv", shapes, "image,kind,module")
    with pytest.raises(DataError, match="has no column 'file': it has image, kind, module"):
        ensure_data(settings_for(tmp_path, *csv_overrides(path, shapes)))
    path.write_text("file,kind,module\nbright/000.png,bright,a\nbright/999.png,bright,a\n")
    with pytest.raises(DataError, match=r"row 3: no file bright/999\.png"):
        ensure_data(settings_for(tmp_path, *csv_overrides(path, shapes)))
    path.write_text("file,kind,module\nbright/000.png,bright,a\nbright/000.png,bright,a\n")
    with pytest.raises(DataError, match="is there twice"):
        ensure_data(settings_for(tmp_path, *csv_overrides(path, shapes)))


def test_labels_outside_the_classes_are_refused(shapes: Path, tmp_path: Path) -> None:
    """A typing error in a label does not silently become a class."""
    overrides = ["data=image-folder", f"data.images='{shapes}'", "data.classes=[bright,dark]"]
    with pytest.raises(DataError, match=r"'striped' is not in data\.classes"):
        ensure_data(settings_for(tmp_path, *overrides))


def test_one_class_or_no_images_are_refused(shapes: Path, tmp_path: Path) -> None:
    """There is nothing to learn from an empty folder or from one class."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no images found"):
        ensure_data(settings_for(tmp_path, "data=image-folder", f"data.images='{empty}'"))
    one = tmp_path / "one"
    one.mkdir()
    (one / "bright").symlink_to(shapes / "bright")
    with pytest.raises(DataError, match="at least two"):
        ensure_data(settings_for(tmp_path, "data=image-folder", f"data.images='{one}'"))


def test_a_missing_folder_is_exit_code_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says which setting to correct."""
    code = main(["data", "data=image-folder", f"data.images='{tmp_path}/none'", f"paths.data='{tmp_path}'"])
    assert code == 78
    assert capsys.readouterr().err == f"imagebatch-train: no folder {tmp_path}/none: correct data.images\n"
