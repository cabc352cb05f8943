"""Pixels of a data set: those that serving sees, kept under a key that changes with what made them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from imagebatch_pixels import decode
from imagebatch_training.images.data import DataSet
from imagebatch_training.images.labels import Example, Labels
from imagebatch_training.images.pixels import load_pixels, pixels_key
from imagebatch_training.settings import Model
from PIL import Image

from tests.training.shapes import draw

MODEL = Model(name="shapes", resize=40, crop=32)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Seventy grey drawings, more than one batch of the decoder."""
    images = tmp_path / "images"
    images.mkdir()
    names = [f"{number:02}.png" for number in range(70)]
    for number, name in enumerate(names):
        draw("striped", number).save(images / name)
    examples = [Example(image_id=name, label="striped") for name in names]
    return DataSet(
        images=images, csv=tmp_path / "labels.csv", labels=Labels(examples=examples, classes=["striped"])
    )


def test_pixels_are_the_ones_that_serving_sees(data: DataSet, tmp_path: Path) -> None:
    """In the order of the files, over the border of a batch too; one channel, as every image is grey."""
    pixels = load_pixels(data, MODEL, "key", tmp_path / "cache")
    assert (pixels.shape, pixels.dtype) == ((70, 1, 32, 32), np.uint8)
    for number in (0, 63, 64, 69):
        served = decode((data.images / f"{number:02}.png").read_bytes(), resize=40, crop=32).numpy()
        np.testing.assert_array_equal(np.repeat(pixels[number], 3, axis=0), served)


def test_one_coloured_image_keeps_three_channels(data: DataSet, tmp_path: Path) -> None:
    """Colour is not thrown away because most images have none."""
    noise = np.random.default_rng(0).integers(0, 256, size=(80, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).save(data.images / "69.png")
    pixels = load_pixels(data, MODEL, "key", tmp_path / "cache")
    assert pixels.shape == (70, 3, 32, 32)
    assert (pixels[69, 0] != pixels[69, 1]).any()


def test_the_key_changes_with_bytes_order_and_size(data: DataSet) -> None:
    """Everything that another array of pixels would come of; and with nothing else."""
    key = pixels_key(data, MODEL)
    assert pixels_key(data, replace(MODEL, name="other", engine="torch")) == key
    assert pixels_key(data, replace(MODEL, resize=48)) != key
    backwards = Labels(examples=list(reversed(data.labels.examples)), classes=["striped"])
    assert pixels_key(replace(data, labels=backwards), MODEL) != key
    draw("dark", 0).save(data.images / "00.png")
    assert pixels_key(data, MODEL) != key


def test_the_cache_holds_one_data_set(data: DataSet, tmp_path: Path) -> None:
    """What was decoded is read and not decoded again; other data's pixels make room."""
    cache = tmp_path / "cache"
    first = load_pixels(data, MODEL, "one", cache)
    for example in data.labels.examples:
        example.path(data.images).unlink()
    np.testing.assert_array_equal(load_pixels(data, MODEL, "one", cache), first)
    draw("dark", 0).save(data.images / "00.png")
    one = replace(data, labels=Labels(examples=data.labels.examples[:1], classes=["striped"]))
    load_pixels(one, MODEL, "two", cache)
    assert [file.name for file in cache.iterdir()] == ["pixels-two.npy"]
