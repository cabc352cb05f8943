"""An image's embedding as it is kept: the model's features, projected to a few dimensions.

The projection is fixed and random, with entries of plus and minus one (D. Achlioptas, JCSS 66, 2003): it
nearly keeps the distances between images, which are all that the drift test looks at, in a twentieth of the
room, and two runs' projections compare because it never changes.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import numpy.typing as npt

DIMENSIONS = 64
_SEED = b"imagebatch embedding 1"

Floats = npt.NDArray[np.float32]


def project(features: Floats) -> list[float]:
    """Projects features (n,) to 64 dimensions; what has no more than these is kept as it is."""
    if len(features) <= DIMENSIONS:
        return [float(value) for value in features]
    return [float(value) for value in (features @ _signs(len(features))).astype(np.float32)]


@cache
def _signs(features: int) -> Floats:
    """Shape (features, 64), made of a hash's bits: no library's random numbers, which may change."""
    bits = np.frombuffer(hashlib.shake_256(_SEED).digest(features * DIMENSIONS // 8), np.uint8)
    signs = np.unpackbits(bits).astype(np.float32).reshape(features, DIMENSIONS) * 2 - 1
    scaled: Floats = signs / np.float32(np.sqrt(DIMENSIONS))
    return scaled
