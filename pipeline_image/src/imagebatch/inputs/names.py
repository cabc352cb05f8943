"""What a name means: a path or URI as somebody gave it, and where a name in a list lies.

A local image is named by a `file://` URI whose path is percent-encoded, so that every name a file system
allows fits. Names in object stores are taken as they are: there `%20` is three characters of a key.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from imagebatch.contracts.addresses import scheme_of
from imagebatch.errors import ConfigurationError
from imagebatch.inputs.archives import is_member

# One store under several names, as its client says them.
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_THIS_MACHINE = ("", "localhost")
_DRIVE = re.compile(r"(?:^|/)[A-Za-z]:(?:/|\\|$)")


def to_uri(path_or_uri: str) -> str:
    """Return a local path as a `file://` URI; any other URI as it is."""
    if scheme_of(path_or_uri):
        return path_or_uri
    return _file_uri(os.path.abspath(path_or_uri))


def absolute(path_or_uri: str) -> str:
    """Return a path as an absolute one, for it is read from other working folders, too; a URI as it is."""
    return path_or_uri if not path_or_uri or scheme_of(path_or_uri) else os.path.abspath(path_or_uri)


def in_one_spelling(uri: str) -> str:
    """Return a URI with the usual name of its store: `s3a://` and `s3://` are one."""
    scheme = scheme_of(uri)
    return f"{_ALIASES.get(scheme, scheme)}{uri[len(scheme) :]}"


def local_path(uri: str) -> str | None:
    """Return the path of a `file://` URI, or None for any other kind."""
    if scheme_of(uri) != "file":
        return None
    _, slash, path = uri[len("file://") :].partition("/")
    return os.fsdecode(unquote_to_bytes(slash + path))


def other_machine(uri: str) -> str:
    """Return the machine that a `file://` URI names, if it is not this one; else nothing."""
    host = uri[len("file://") :].partition("/")[0] if scheme_of(uri) == "file" else ""
    return "" if host.lower() in _THIS_MACHINE else host


def require_this_machine(flag: str, uri: str) -> None:
    """Refuse a `file://` URI of another machine.

    Raises:
        ConfigurationError: It names one; most often a slash is missing.
    """
    if host := other_machine(uri):
        raise ConfigurationError(
            f"{flag} {uri}: names the machine {host}; a file here has three slashes, file:///data/x"
        )


def folder_of(path_or_uri: str) -> str:
    """Return the URI of the folder in which a file lies, or a folder that is a list itself."""
    uri = to_uri(path_or_uri)
    scheme, rest = uri[: len(scheme_of(uri)) + 3], uri[len(scheme_of(uri)) + 3 :]
    return scheme + rest.rstrip("/").rpartition("/")[0]


def resolved(name: str, folder: str) -> str:
    """Return the URI of a name in a list.

    A URI is itself, an absolute path a file of this machine, and anything else lies below, beside or above
    the list's folder, as every other tool would read it: the system follows `..` on a disk, and in a store
    it takes one part of the key away. Nothing is decoded but `file://` URIs.

    Args:
        name: As it stands in the list.
        folder: URI of the folder that the list lies in.
    """
    if scheme_of(name) or is_member(name):
        return name
    if name[:6].lower() == "file:/":  # as Java writes it
        return f"file://{name[5:]}"
    if name.startswith("/"):
        return _file_uri(name)
    path = local_path(folder)
    return _in_store(folder, name) if path is None else _file_uri(f"{path.rstrip('/')}/{name}")


def is_relative(name: str) -> bool:
    """Tell whether a name in a list starts at the list's folder."""
    return not (scheme_of(name) or is_member(name) or name[:6].lower() == "file:/" or name.startswith("/"))


def about_missing(name: str) -> str:
    """Say why there may be no file or object of this name; empty if nothing is odd about it."""
    if "\\" in name or _DRIVE.search(name):
        return "; it reads like a path of Windows: write / between folders, and where this machine has it"
    if any(part != part.strip() for part in name.split("/")):
        return "; the name begins or ends with a space"
    if name.startswith("~") or "/~" in name:
        return "; ~ is not your home folder here: write it out"
    return ""


def _file_uri(path: str) -> str:
    # Only the system knows where `..` leads, for the folder before it may be a link.
    plain = path if ".." in path.split("/") else os.path.normpath(path)
    return "file://" + quote_from_bytes(os.fsencode(plain))


def _in_store(folder: str, name: str) -> str:
    scheme, rest = folder.split("://", 1)
    bucket, *parts = rest.split("/")
    for part in name.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)  # a `..` that leads out of the bucket stays, and is refused when it is read
    return f"{scheme}://{'/'.join([bucket, *parts])}"
