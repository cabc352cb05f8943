"""Pixels of a whole data set, decoded once and kept."""

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from imagebatch_pixels import (  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
    ImageError,
    decode,
)

from imagebatch_training.errors import DataError
from imagebatch_training.files import publish, sha256_json
from imagebatch_training.images.data import DataSet
from imagebatch_training.progress import progress
from imagebatch_training.settings import Model

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
_BATCH = 64


def pixels_key(data: DataSet, model: Model) -> str:
    """Compute a key that changes with the bytes of any image, with their order and with how they are decoded.

    Raises:
        DataError: An image cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(_digest, _files(data)))
    declared = [said for said in (model.view.declared(), model.square.declared()) if said]
    return sha256_json([model.pixels, model.resize, model.crop, *declared, digests])[:16]


def load_pixels(data: DataSet, model: Model, key: str, cache: Path) -> Pixels:
    """Decode every image of a data set with the function that serving uses.

    Args:
        data: Images and labels.
        model: `resize` and `crop`, pixels.
        key: From `pixels_key`.
        cache: Folder for the decoded pixels; other data's pixels there are removed.

    Returns:
        uint8 array (images, channels, crop, crop), in file order, memory-mapped. One channel where
        every image is grey, to be repeated three times; else three.

    Raises:
        DataError: An image cannot be decoded.
    """
    path = cache / f"pixels-{key}.npy"
    if not path.is_file():
        files = _files(data)
        batches = [files[i : i + _BATCH] for i in range(0, len(files), _BATCH)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded = [
                np.stack(list(pool.map(lambda file: _decode(file, model), batch)))
                for batch in progress(batches, f"decoding images, batches of {_BATCH}")
            ]
        _save(path, _grey(np.concatenate(decoded)))
    pixels: Pixels = np.load(path, mmap_mode="r")
    return pixels


def _files(data: DataSet) -> list[Path]:
    return [example.path(data.images) for example in data.labels.examples]


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; run imagebatch-train data") from error


def _decode(file: Path, model: Model) -> Pixels:
    try:
        pixels: Pixels = decode(file.read_bytes(), **model.decoding).numpy()
    except ImageError as error:
        raise DataError(f"{file}: {error}; remove it from the labels") from error
    return pixels


def _grey(pixels: Pixels) -> Pixels:
    grey = all((image == image[:1]).all() for image in pixels)
    return np.ascontiguousarray(pixels[:, :1]) if grey else pixels


def _save(path: Path, pixels: Pixels) -> None:
    for stale in path.parent.glob("pixels-*.npy"):
        stale.unlink()
    with publish(path) as temporary:
        np.save(temporary, pixels)
