"""Memory in which a worker leaves the pixels it has made: they need not pass through a socket."""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import sys
import weakref
from typing import Any

NAME = "imagebatch-pixels"

_numbers = itertools.count(1)


class PixelMemory:
    """Memory that is filled by one worker at a time, again and again.

    Nothing of it outlives this object, or its process: no file is made. A worker that is killed leaves it as
    it is, and the next one fills it anew.

    Args:
        size: Bytes.

    Attributes:
        size: Bytes.
        place: Where a process of the same user finds it, for a request to a worker: `pid`, `fd`, `size` and
            a `number` that no other memory of this process has had.

    Raises:
        OSError: Too many files are open, or this system has no such thing.
    """

    def __init__(self, size: int) -> None:
        if sys.platform != "linux":
            raise OSError("only Linux can share memory so")
        descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, size)
        # Whoever reads it would be ended by a signal if it became shorter.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        self._mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        self.size = size
        self.place: dict[str, Any] = {
            "pid": os.getpid(),
            "fd": descriptor,
            "size": size,
            "number": next(_numbers),
        }

    def read(self, size: int) -> bytes:
        """Return a copy of its first bytes."""
        return self._mapped[:size]
