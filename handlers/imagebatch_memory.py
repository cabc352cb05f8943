"""Memory that a client on the same machine shares instead of sending its images (docs/reference/wire.md)."""

import fcntl
import mmap
import os
import sys
from pathlib import Path
from typing import Any, Final

NAME: Final = "imagebatch"
"""The name under which a client makes the memory; no other is opened."""

TOKEN_BYTES: Final = 16
"""Length of the token that the memory begins with and the request repeats."""


class NotSharedError(ValueError):
    """The memory that a request names is not to be had here; its text is one line."""


def shared(place: Any) -> memoryview:
    """Open a client's memory.

    The client's process holds it as a memfd, and only a process of the same user on the same machine can open
    that. It must be sealed: nobody can then change or shorten it while it is read.

    Args:
        place: `{"pid": process, "fd": descriptor there, "token": hex of the memory's first 16 bytes}`.

    Returns:
        The memory after its token, read-only, uint8; it stays open for as long as the view lives.

    Raises:
        NotSharedError: There is no such memory, or it is not sealed, not of this name or not of this token.
    """
    if sys.platform != "linux":
        raise NotSharedError("only Linux can share memory so")
    try:
        path = Path("/proc", str(int(place["pid"])), "fd", str(int(place["fd"])))
        token = bytes.fromhex(place["token"])
        # Looked at before it is opened: to open a pipe or a device may do something.
        if str(path.readlink()) != f"/memfd:{NAME} (deleted)":
            raise NotSharedError(f"{path} is no memory of {NAME}")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            if (needed := fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK) != seals & needed:
                raise NotSharedError(f"{path} is not sealed")
            # Private: before Linux 6.7 sealed memory cannot be mapped shared, even for reading.
            memory = mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE | mmap.MAP_POPULATE, mmap.PROT_READ)
        finally:
            os.close(descriptor)
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, NotSharedError):
            raise
        raise NotSharedError(f"it cannot be opened: {str(error)[:150]}") from error
    view = memoryview(memory)
    if len(token) != TOKEN_BYTES or view[:TOKEN_BYTES] != token:
        raise NotSharedError(f"{path} has another token")
    return view[TOKEN_BYTES:]
