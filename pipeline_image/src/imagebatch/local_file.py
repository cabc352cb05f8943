"""A file of this machine, written as a whole or not at all."""

from __future__ import annotations

import uuid
from pathlib import Path

from imagebatch.errors import StorageError


def replace_text(path: Path, text: str, flag: str = "") -> None:
    """Write a UTF-8 file beside `path`, and let it take that name.

    Args:
        path: In a folder that is there.
        text: Content.
        flag: That gave the path; said in the error.

    Raises:
        StorageError: It cannot be written; what was there stays, and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"{flag} {path}: {error.strerror}".lstrip()) from error
