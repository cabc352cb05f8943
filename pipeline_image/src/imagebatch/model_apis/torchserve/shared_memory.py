"""Images handed to a model server on this machine by memory (docs/reference/wire.md)."""

from __future__ import annotations

import fcntl
import os
import secrets
import sys
import weakref
from collections.abc import Sequence

NAME = "imagebatch"
TOKEN_BYTES = 16

_MOST_BUFFERS = 512  # of one system call: POSIX promises 16, Linux takes 1,024


class SharedMemory:
    """Sealed memory that holds a token and then the contents, without a gap.

    Nothing of it outlives this object, or its process: no file is made.

    Args:
        contents: What the memory shall hold.

    Attributes:
        place: Where a process of the same user finds it: `pid`, `fd` and `token`, as JSON of a request.

    Raises:
        OSError: There is not enough memory, or too many files are open, or this system has no such thing.
    """

    def __init__(self, contents: Sequence[bytes]) -> None:
        if sys.platform != "linux":
            raise OSError("only Linux can share memory so")
        token = secrets.token_bytes(TOKEN_BYTES)
        descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, descriptor)
        buffers = [token, *contents]
        for start in range(0, len(buffers), _MOST_BUFFERS):
            some = buffers[start : start + _MOST_BUFFERS]
            if os.writev(descriptor, some) != sum(map(len, some)):
                raise OSError("the memory is full")
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        self.place = {"pid": os.getpid(), "fd": descriptor, "token": token.hex()}
