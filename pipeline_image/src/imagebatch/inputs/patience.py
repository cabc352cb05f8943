"""Errors that are the storage's and not the file's: the next try may succeed."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from imagebatch.errors import StorageError

T = TypeVar("T")

# A network share that went away and came back gives the first few.
PASSING = frozenset(
    {
        *(
            errno.EIO,
            errno.ESTALE,
            errno.ETIMEDOUT,
            errno.ENOTCONN,
            errno.EREMOTEIO,
            errno.ENOLCK,
            errno.EBUSY,
        ),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET),
        *(errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR),
    }
)
_PAUSES = (0.1, 0.5, 1.5)  # seconds before a local file is tried again


def patiently(verb: str, path: str, attempt: Callable[[], T]) -> T:
    """Do what may meet an error of the storage itself, a few times.

    Raises:
        OSError: Another error.
        StorageError: It did not pass.
    """
    for pause in (*_PAUSES, None):
        try:
            return attempt()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            if pause is None:
                raise storage_failed(verb, path, error) from error
            time.sleep(pause)
    raise AssertionError  # the last pause is None


def storage_failed(verb: str, path: str, error: OSError) -> StorageError:
    """Say of what was to be done (`read`, `list`) that the storage has failed."""
    return StorageError(
        f"cannot {verb} {path}: {error.strerror}; check the disk or share and run the same command again"
    )
