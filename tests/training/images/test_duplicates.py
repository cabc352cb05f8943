"""Which pictures count as one."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from imagebatch_training.errors import DataError
from imagebatch_training.images.duplicates import group_duplicates
from PIL import Image, ImageEnhance

from tests.training.shapes import draw


def picture(seed: int) -> Image.Image:
    """Something with structure at every scale, as photographs have: it falls off with the frequency."""
    random = np.random.default_rng(seed)
    waves = np.fft.rfft2(random.normal(size=(240, 320)))
    down, across = np.meshgrid(np.fft.fftfreq(240), np.fft.rfftfreq(320), indexing="ij")
    grey = np.fft.irfft2(waves / np.hypot(down, across).clip(1 / 320), s=(240, 320))
    grey = (grey - grey.min()) / np.ptp(grey) * 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def changed(image: Image.Image) -> list[Image.Image]:
    """The same photograph as people keep it twice."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=60)
    return [image.resize((160, 120)), ImageEnhance.Brightness(image).enhance(1.15), Image.open(stream)]


def test_a_picture_and_its_copies_are_one_group(tmp_path: Path) -> None:
    """Saved again, smaller, brighter: one number each; different pictures never share one."""
    files = []
    for seed in range(12):
        for number, image in enumerate([picture(seed), *changed(picture(seed))]):
            files.append(tmp_path / f"{number}-{seed:02}.png")
            image.save(files[-1])
    files.sort()
    groups = group_duplicates(files)
    assert groups.tolist() == list(range(12)) * 4


def test_pictures_of_one_class_are_not_one(tmp_path: Path) -> None:
    """Drawings that differ in their noise alone stay apart."""
    files = [tmp_path / f"{index}.png" for index in range(12)]
    for index, file in enumerate(files):
        draw("striped", index).save(file)
    assert len(set(group_duplicates(files).tolist())) == len(files)


def test_equal_pictures_are_compared_once(tmp_path: Path) -> None:
    """A night of black frames beside one photograph: two groups, whatever the order."""
    files = [tmp_path / f"{number:02}.png" for number in range(9)]
    for number, file in enumerate(files):
        (picture(1) if number == 3 else Image.new("RGB", (320, 240))).save(file)
    assert group_duplicates(files).tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """One line, with the file and what to do."""
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"x\.png: .*; remove it from the labels"):
        group_duplicates([tmp_path / "x.png"])
