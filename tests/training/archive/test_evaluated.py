"""An archive asked about labelled images, through the command that people type."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from imagebatch_training import cli
from imagebatch_training.archive.archive import archive_paths, ensure_archive
from imagebatch_training.archive.evaluated import evaluate_archive
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.fit.report import require_report
from imagebatch_training.settings import Settings

from tests.training.shapes import CLASSES, draw


@pytest.fixture(scope="module")
def archive(trained: Settings) -> Path:
    ensure_archive(trained)
    return archive_paths(trained)[0]


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """Images of the same three classes that no training has seen: 20 of each."""
    for number, name in enumerate(CLASSES):
        (tmp_path / "held-out" / name).mkdir(parents=True)
        for seed in range(20):
            draw(name, 5000 + 100 * number + seed).save(tmp_path / "held-out" / name / f"{seed:02}.png")
    return tmp_path / "held-out"


def of(settings: Settings, images: Path) -> Settings:
    return replace(settings, data=replace(settings.data, images=str(images)))


def test_unseen_images_do_as_training_said(
    trained: Settings, archive: Path, held_out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A held-out folder's accuracy lies in the interval that `train` printed; text and JSON tell the same."""
    words = ["evaluate", "--archive", str(archive), "data=image-folder", f"data.images='{held_out}'"]
    words += [f"paths.handlers='{trained.paths.handlers}'"]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    report = require_report(trained)
    served = report["served"]
    (result,) = [
        one for one in report["results"] if all(one[key] == served[key] for key in ("split", "method"))
    ]
    low, high = result["test"]["wilson"]
    assert told["images"] == 60
    assert {name: one["images"] for name, one in told["classes"].items()} == dict.fromkeys(CLASSES, 20)
    assert low <= told["accuracy"] <= high
    picture = held_out.parent / "coverage.svg"
    assert cli.main([*words, "--picture", str(picture)]) == 0
    assert f"accuracy {told['accuracy']:.3f}: {told['correct']} of 60 images" in capfd.readouterr().out
    assert picture.read_text().startswith("<?xml")


def test_what_is_named_wrong_counts_as_wrong(trained: Settings, archive: Path, held_out: Path) -> None:
    """Two folders with their names exchanged: recall falls to nothing in both, and not in the third."""
    before = evaluate_archive(of(trained, held_out), archive)
    (held_out / "bright").rename(held_out / "x")
    (held_out / "dark").rename(held_out / "bright")
    (held_out / "x").rename(held_out / "dark")
    after = evaluate_archive(of(trained, held_out), archive)
    for one, other in (("bright", "dark"), ("dark", "bright")):
        # The images are the other folder's: right now are those that were called so wrongly before.
        assert after["classes"][one]["recall"] + before["classes"][other]["recall"] <= 1
        assert after["classes"][one]["recall"] < before["classes"][one]["recall"]
    assert after["classes"]["striped"]["recall"] == before["classes"]["striped"]["recall"]


def test_a_broken_image_is_told_and_counts_for_nothing(
    trained: Settings, archive: Path, held_out: Path
) -> None:
    """The others are compared, and the reason stands beside its name."""
    (held_out / "dark" / "00.png").write_bytes((held_out / "dark" / "01.png").read_bytes()[:300])
    told = evaluate_archive(of(trained, held_out), archive)
    assert told["images"] == 59
    assert list(told["unreadable"]) == ["dark/00.png"]


def test_another_class_is_refused(trained: Settings, archive: Path, held_out: Path) -> None:
    """A folder that the model knows no class for: one line with its name, and what the model knows."""
    shutil.copytree(held_out / "dark", held_out / "dotted")
    with pytest.raises(
        DataError, match=r"'dotted' is no class of shapes.mar: it knows bright, dark, striped;"
    ):
        evaluate_archive(of(trained, held_out), archive)


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_no_archive(trained: Settings, held_out: Path, content: bytes | None) -> None:
    """A missing file, and one that is none, are told apart in one line each."""
    mar = held_out.parent / "other.mar"
    if content:
        mar.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is no archive" if content else "^no .*other.mar: run"):
        evaluate_archive(of(trained, held_out), mar)
