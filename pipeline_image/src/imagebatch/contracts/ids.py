"""Identifiers: image ids that are safe everywhere and can be turned back, and digests of contents."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from urllib.parse import unquote_to_bytes

FORMULA_START = frozenset("=+-@")
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cn"})
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9 _./,;()\[\]+=@-]*")
_PAGE = re.compile(r"#(page=[0-9]+)\Z")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)([eE][+-]?\d+)?%?")


def encode_id(name: bytes) -> str:
    """Turn a file's name into an image id that is safe in CSV, HTML, logs and paths, and can be turned back.

    `%`, bytes that are not valid UTF-8, control, format, separator and unassigned characters become `%XX`,
    and so does a first character that a spreadsheet would take for a formula.

    Args:
        name: The name's bytes, relative to the input, with `/` between folders.

    Returns:
        Text without control characters; `decode_id` gives `name` back.
    """
    text = name.decode("utf-8", "surrogateescape")
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        if char == "%"
        or "\udc80" <= char <= "\udcff"
        or unicodedata.category(char) in _UNSAFE_CATEGORIES
        or (index == 0 and char in FORMULA_START)
        else char
        for index, char in enumerate(text)
    )


def page_id(image_id: str, page: int) -> str:
    """Name one page of a file: `scan.tif#page=3`, as RFC 8118 names a page of a PDF."""
    return f"{image_id}#page={page}"


def without_page(image_id: str) -> str:
    """Write the id of a whole file so that it is no page's of another: a `#` that would name one is `%23`."""
    return _PAGE.sub(r"%23\1", image_id)


def file_of(image_id: str) -> str:
    """Return the id of the file that an image is a page of; any other id as it is."""
    return _PAGE.sub("", image_id)


def decode_id(image_id: str) -> bytes:
    """Give back the bytes that `encode_id` was given."""
    return unquote_to_bytes(image_id)


def encode_cell(text: str) -> str:
    """Make a value that a list gave safe in a CSV file, a spreadsheet and a terminal.

    A value that holds a control, format, separator or unassigned character, or begins like a formula and is
    no number, is written as an image id is; any other stays as it is.
    """
    if _PLAIN.fullmatch(text) or _NUMBER.fullmatch(text):
        return text
    odd = text[:1] in FORMULA_START or any(unicodedata.category(char) in _UNSAFE_CATEGORIES for char in text)
    return encode_id(text.encode()) if odd else text


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
