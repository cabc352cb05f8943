"""What is asked of an object store, in one request each, and what its refusals mean.

Clients (s3fs, gcsfs, adlfs) offer one interface, and pay for it with requests: a file is looked up before it
is read, an absent one is looked for as a folder too, an empty listing is taken for a file. Here a name is a
key, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import sync

_PRECONDITION_FAILED = {"PreconditionFailed"}
_NOT_FOUND = 404
_PAST_THE_END = 416
_ONE_WRITE = 64 << 20  # bytes; as Azure's client sends at once
_NOT_IMPLEMENTED = 501


def read_object(filesystem: fsspec.AbstractFileSystem, key: str) -> bytes:
    """Read an object with one request.

    Raises:
        FileNotFoundError: There is none of this key.
    """
    # s3fs asks for the size first, to read a large object in pieces at once.
    options = {"max_concurrency": 1} if _kind(filesystem) == "s3" else {}
    return bytes(filesystem.cat_file(key, **options))


def read_beginning(filesystem: fsspec.AbstractFileSystem, key: str, most: int) -> bytes:
    """Read an object's first bytes with one request.

    Args:
        filesystem: Of the store.
        key: Of the object, with its bucket.
        most: Bytes, above 0; fewer are returned only of an object that has no more.

    Raises:
        FileNotFoundError: There is none of this key.
    """
    try:
        return bytes(filesystem.cat_file(key, start=0, end=most))
    except Exception as error:
        if _status_in(error) == _PAST_THE_END:  # what no byte of can be asked for is empty
            return b""
        raise


def object_exists(filesystem: fsspec.AbstractFileSystem, key: str) -> bool:
    """Tell with one request whether there is an object of this key."""
    try:
        read_beginning(filesystem, key, 1)
    except FileNotFoundError:
        return False
    return True


def is_whole_key(filesystem: fsspec.AbstractFileSystem, path: str, uri: str) -> bool:
    """Tell whether a client asks for exactly the key that a URI names: some cut it, as at `?versionId=`.

    Args:
        filesystem: Of the store.
        path: The URI as the client takes it.
        uri: The URI.
    """
    split = getattr(filesystem, "split_path", None)
    bucket, _, key = uri.partition("://")[2].partition("/")
    if split is None or bucket.startswith("arn:"):  # such a bucket's name has slashes of its own
        return True
    # Azure's client, and no other, follows these two as a browser would.
    followed = _kind(filesystem) == "az" and not {".", ".."}.isdisjoint(key.split("/"))
    return bool(split(path)[1] == key) and not followed


def create_object(filesystem: fsspec.AbstractFileSystem, source: Path, key: str) -> None:
    """Put an object unless there is one of this key.

    Raises:
        Exception: See `already_there`; or the store failed.
    """
    size = source.stat().st_size
    if _kind(filesystem) == "gs" and size <= _ONE_WRITE:
        # gcsfs would send more than 5 MiB in pieces, which not every server holds to the condition.
        filesystem.pipe_file(key, source.read_bytes(), mode="create", chunksize=size + 1)
    else:
        filesystem.put_file(str(source), key, mode="create")


def keys_below(filesystem: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    """List the keys that begin with a folder's and a slash, each as the store has it.

    Args:
        filesystem: Of the store.
        folder: A bucket, with a key or without.

    Returns:
        Keys with their bucket, in no order; of markers of folders, too, which end with a slash.

    Raises:
        FileNotFoundError: There is no such bucket, where the store says so.
    """
    bucket, _, key = folder.partition("/")
    prefix = f"{key}/" if key else ""
    kind = _kind(filesystem)
    if kind == "az":
        names: list[str] = sync(filesystem.loop, _blobs, filesystem, bucket, prefix)
        return [f"{bucket}/{name}" for name in names]
    filesystem.invalidate_cache()
    if kind and prefix:
        # Asked for a folder that is empty, they go on to look for a file.
        return [str(found) for found in filesystem.find(bucket, prefix=prefix)]
    return [str(found) for found in filesystem.find(folder)]


async def _blobs(filesystem: Any, container: str, prefix: str) -> list[str]:
    """List Azure's blobs: adlfs asks four times, and takes the slash from the end of a name."""
    try:
        async with filesystem.service_client.get_container_client(container=container) as client:
            found = client.list_blobs(name_starts_with=prefix or None, include=["metadata"])
            return [blob.name async for blob in found if not _is_folder(blob)]
    except Exception as error:
        if _status_in(error) == _NOT_FOUND:
            raise FileNotFoundError(f"no container {container}") from error
        raise


def _is_folder(blob: Any) -> bool:
    """Tell whether a blob stands for a folder of a hierarchical account, as no key can do elsewhere."""
    told = {name.lower(): value for name, value in (blob.metadata or {}).items()}
    return told.get("hdi_isfolder") == "true" and not blob.name.endswith("/")


def already_there(error: BaseException) -> bool:
    """Tell whether a conditional write was refused by its condition; s3fs knows only the way AWS says it."""
    return any(
        isinstance(one, FileExistsError) or _code(one) in _PRECONDITION_FAILED for one in _chain(error)
    )


def conditions_unknown(error: BaseException) -> bool:
    """Tell whether a store says that it does not know conditional writes."""
    known = any(isinstance(one, NotImplementedError) for one in _chain(error))
    return known or _status_in(error) == _NOT_IMPLEMENTED


def _kind(filesystem: fsspec.AbstractFileSystem) -> str:
    """Name the store as its URIs do; empty: none of those that are known here."""
    protocols = filesystem.protocol
    names = [protocols] if isinstance(protocols, str) else protocols
    return next((name for name in names if name in {"s3", "gs", "az", "abfs"}), "").replace("abfs", "az")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _code(error: BaseException) -> str:
    """Return the code that botocore's errors carry; empty if it is none."""
    reply: Any = getattr(error, "response", None)
    return str(reply.get("Error", {}).get("Code", "")) if isinstance(reply, dict) else ""


def _status_in(error: BaseException) -> int:
    """Return the HTTP status that an error, or one that it was raised from, is about; 0 if none is known."""
    for one in _chain(error):
        reply: Any = getattr(one, "response", None)
        told = reply.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(reply, dict) else None
        # gcsfs has a code, Azure's errors a status.
        for value in (told, getattr(one, "code", None), getattr(one, "status_code", None)):
            if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
                return int(value)
        if _code(one) == "InvalidRange":
            return _PAST_THE_END
    return 0
