"""Pictures that are nearly the same, so that no split puts one into training and its twin into the test."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from imagebatch_pixels import (  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
    FIRST_PIXELS,
    ImageError,
    decode,
)
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from imagebatch_training.errors import DataError
from imagebatch_training.progress import progress

# Of 256 bits of a perceptual hash (the signs of the lowest frequencies): different photographs differ in
# about 128, one that was saved again, made smaller or a little brighter in 0 to 14.
SAME_BITS = 20
_SIDE = 16
_PIXELS = 96
_ROWS = 2048


def group_duplicates(files: Sequence[Path]) -> npt.NDArray[np.int64]:
    """Give near-duplicates one number.

    Args:
        files: Images, in file order.

    Returns:
        Group number per file, 0..n-1 in order of first appearance; what is like two others joins them.

    Raises:
        DataError: An image cannot be decoded.
    """
    batches = [files[i : i + 256] for i in range(0, len(files), 256)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = [
            bits
            for batch in progress(batches, "looking for near-duplicates, batches of 256")
            for bits in pool.map(_hash, batch)
        ]
    # Equal ones are compared once: a thousand black pictures would be a million pairs.
    different, of_file = np.unique(np.stack(hashes), axis=0, return_inverse=True)
    _, found = connected_components(_alike(different), directed=False)
    _, first, numbers = np.unique(found[of_file.ravel()], return_index=True, return_inverse=True)
    groups: npt.NDArray[np.int64] = np.argsort(np.argsort(first))[numbers].astype(np.int64)
    return groups


def _hash(file: Path) -> npt.NDArray[np.bool_]:
    try:
        # Always whole: what is a duplicate decides about the splits, which shall stay as they are.
        pixels = decode(file.read_bytes(), resize=_PIXELS, crop=_PIXELS, version=FIRST_PIXELS).numpy()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; run imagebatch-train data") from error
    except ImageError as error:
        raise DataError(f"{file}: {error}; remove it from the labels") from error
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    bits: npt.NDArray[np.bool_] = imagehash.phash(picture, hash_size=_SIDE).hash.flatten()
    return bits


def _alike(hashes: npt.NDArray[np.bool_]) -> "coo_array":
    """Find the pairs with at most SAME_BITS different bits: products of signs count equal less different."""
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    least = signs.shape[1] - 2 * SAME_BITS
    rows, columns = [], []
    for start in range(0, len(signs), _ROWS):
        near = np.argwhere(signs[start : start + _ROWS] @ signs.T >= least)
        rows.append(near[:, 0] + start)
        columns.append(near[:, 1])
    row, column = np.concatenate(rows), np.concatenate(columns)
    return coo_array((np.ones(len(row), np.int8), (row, column)), shape=(len(signs), len(signs)))
