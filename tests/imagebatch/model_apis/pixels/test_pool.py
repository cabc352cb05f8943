"""Pixels made in worker processes: those of the handlers, to the bit, in every form that a server takes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagebatch_pixels
import numpy as np
import numpy.typing as npt
import pytest
from imagebatch.errors import ConfigurationError
from imagebatch.model_apis.base import ImagePayload
from imagebatch.model_apis.pixels import pool
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.pixels.pool import Datatype, Form, Layout, PixelMaker, maker_for
from imagebatch.settings import ApiSettings
from imagebatch_header import ImageError, View
from PIL import Image

from tests.support.images import encoded, jpeg, photograph

VIEW = {"value_range": "12-bit", "background": "#102030", "page": 1, "end_marker": "lenient"}
DECLARED: dict[str, Any] = {"version": "1", "resize": 72, "crop": 64, "max_pixels": 200_000} | VIEW
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def _images(folder: Path) -> list[ImagePayload]:
    """Files that each of the declared settings matters to, and some that cannot be read."""
    rows, columns = np.indices((90, 120))
    clear = np.stack([rows, columns, rows + columns, columns * 2], axis=-1).astype(np.uint8)
    Image.fromarray(clear, "RGBA").save(folder / "clear.png")
    Image.fromarray(((rows * columns) % 4096).astype(np.uint16)).save(folder / "deep.tif")
    photo = encoded(photograph(1, (200, 150)))
    files = {
        "plain": jpeg(1),
        "large": photo,
        "clear": (folder / "clear.png").read_bytes(),
        "deep": (folder / "deep.tif").read_bytes(),
        "no end marker": photo.removesuffix(b"\xff\xd9"),
        "truncated": photo[: len(photo) // 2],
        "too many pixels": encoded(photograph(1, (600, 500))),
        "no image": b"hello",
        "empty": b"",
    }
    return [ImagePayload(name, data) for name, data in files.items()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[ImagePayload]:
    return _images(tmp_path_factory.mktemp("files"))


@pytest.fixture(
    scope="module", params=[("UINT8", "NCHW"), ("UINT8", "NHWC"), ("FP32", "NCHW"), ("FP32", "NHWC")]
)
def kind(request: pytest.FixtureRequest) -> tuple[Datatype, Layout]:
    """What a server takes."""
    datatype, layout = request.param
    return datatype, layout


@pytest.fixture(scope="module")
def maker(kind: tuple[Datatype, Layout]) -> Iterator[PixelMaker]:
    pixels = Pixels.model_validate(DECLARED | {"mean": MEAN, "std": STD})
    made = PixelMaker(pixels, *kind, workers=1, timeout=120)
    yield made
    made.close()


def _expected(data: bytes, datatype: Datatype, layout: Layout) -> npt.NDArray[Any] | tuple[str, str]:
    """What the handler's own function gives, and torchvision's formula in double precision."""
    try:
        pixels = imagebatch_pixels.decode(
            data, resize=72, crop=64, max_pixels=200_000, view=View(**VIEW), version="1"
        ).numpy()
    except ImageError as error:
        return error.reason, error.detail
    if datatype == "FP32":
        mean, std = (np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
        pixels = ((pixels / 255 - mean) / std).astype(np.float32)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)) if layout == "NHWC" else pixels


@pytest.mark.parametrize("form", ["raw", "json"])
def test_the_pixels_are_the_handlers_own(
    maker: PixelMaker, kind: tuple[Datatype, Layout], images: list[ImagePayload], form: Form
) -> None:
    """Each byte is the handler's, each refusal has its words, and text holds the same numbers."""
    made = maker.make(images, form)
    expected = [_expected(image.data, *kind) for image in images]
    told = [(answer.reason, answer.detail) for answer in made.refusals if answer]
    assert told == [each for each in expected if isinstance(each, tuple)]
    assert [answer is not None for answer in made.refusals] == [isinstance(each, tuple) for each in expected]
    tensor = np.stack([each for each in expected if not isinstance(each, tuple)])
    assert tensor.shape == (made.count, *maker.shape)
    assert made.count == 5
    if form == "raw":
        assert made.contents == tensor.tobytes()
    else:
        numbers = np.array(json.loads(b"[" + made.contents + b"]"), tensor.dtype)
        assert numbers.tobytes() == tensor.tobytes()
    assert len(made.contents) <= made.count * maker.size(form)


@pytest.mark.parametrize(
    "fit", [{"fit": "squash"}, {"fit": "pad", "padding": "#102030"}, {"interpolation": "bicubic"}]
)
def test_a_square_is_made_as_declared(images: list[ImagePayload], fit: dict[str, str]) -> None:
    """What the archive declares of it reaches the workers, and names another model."""
    declared = Pixels.model_validate(DECLARED | fit)
    made = PixelMaker(declared, "UINT8", "NCHW", workers=1, timeout=120)
    try:
        (large,) = [image for image in images if image.key == "large"]
        contents = made.make([large], "raw").contents
    finally:
        made.close()
    known = {"resize": 72, "crop": 64, "max_pixels": 200_000, "view": View(**VIEW), "version": "1"}
    expected = imagebatch_pixels.decode(large.data, **known, fit=imagebatch_pixels.Fit(**fit))
    assert contents == expected.numpy().tobytes()
    assert contents != imagebatch_pixels.decode(large.data, **known).numpy().tobytes()
    assert declared.pinned("sha256:x") != Pixels.model_validate(DECLARED).pinned("sha256:x")


def test_a_padding_that_is_no_colour_is_refused() -> None:
    """In words, before a worker is started."""
    with pytest.raises(ValueError, match="padding must be white, black, grey or #rrggbb, not 'blue-ish'"):
        Pixels.model_validate(DECLARED | {"fit": "pad", "padding": "blue-ish"})


def test_whoever_makes_the_same_pixels_shares_the_workers() -> None:
    """Two endpoints of one model have one pool; its processes end with the last that holds it."""
    pixels = Pixels.model_validate(DECLARED)
    settings = ApiSettings(local_workers=1)
    first, second = (maker_for(pixels, "UINT8", "NCHW", settings) for _ in range(2))
    assert first is second
    assert maker_for(pixels, "UINT8", "NHWC", settings) is not first
    first.make([ImagePayload("x", jpeg(1))], "raw")
    (worker,) = first._pool.all  # noqa: SLF001 (a process is not visible from outside)
    pid = worker.pid
    del first, worker
    os.kill(pid, 0)
    del second
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages' own image has no torch: there the line says what to install."""
    monkeypatch.setattr(pool, "_NEEDED", ("no_such_package",))
    with pytest.raises(
        ConfigurationError, match=r"needs no_such_package: install the extra, imagebatch\[local\]"
    ):
        maker_for(Pixels.model_validate(DECLARED), "UINT8", "NCHW", ApiSettings())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 80}, "crop, 80, must not be larger than resize, 72"),
        ({"version": "0"}, "takes pixels of version 0, this imagebatch makes"),
        ({"mean": MEAN}, "mean and std belong together"),
        ({"mean": MEAN, "std": [0.2, 0.0, 0.2]}, "greater than 0"),
        ({"value_range": "17-bit"}, "value_range must be"),
        ({"background": "pink"}, "background must be"),
        ({"page": "first"}, "valid integer"),
        ({"resample": "bicubic"}, "Extra inputs"),
    ],
)
def test_what_cannot_be_declared_is_refused(change: dict[str, Any], message: str) -> None:
    """A card with what is not made here never makes something else."""
    with pytest.raises(ValueError, match=message):
        Pixels.model_validate(DECLARED | change)


def test_a_digest_changes_with_whatever_changes_the_pixels() -> None:
    """Not with how they are sent, which changes no answer."""
    plain = Pixels.model_validate(DECLARED)
    digest = "sha256:" + "0" * 64
    changes = [{"crop": 60}, {"resize": 80}, {"background": "white"}, {"max_pixels": 1}, {"page": 2}]
    changes += [{"mean": MEAN, "std": STD}]
    others = {Pixels.model_validate(DECLARED | change).pinned(digest) for change in changes}
    assert len(others | {plain.pinned(digest), digest}) == len(changes) + 2
    assert Pixels.model_validate(DECLARED | {"layout": "NCHW"}).pinned(digest) == plain.pinned(digest)
