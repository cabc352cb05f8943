"""Requests and replies of docs/reference/wire.md, as TorchServe hands them to a handler."""

import base64
import binascii
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import Any

from imagebatch_header import ImageError
from imagebatch_memory import NotSharedError, shared
from imagebatch_model import Settings

Row = Mapping[str, Any]
Headers = Mapping[str, Any]
Content = bytes | bytearray | memoryview | ImageError

_POSITIONS = re.compile(r"[0-9]{1,6}(,[0-9]{1,6})*")
_NAME = re.compile(rb';[ \t]*name="([^"]*)"', re.IGNORECASE)


class RequestError(ValueError):
    """A request that cannot be understood; its text is the one-line answer with status 400."""


@dataclass(frozen=True)
class Request:
    """One parsed request.

    Attributes:
        images: Id and file content of each image, in order; an `ImageError` where the content did not arrive.
        top_k: Labels wanted per image.
        single: The body was one image: its failure is the request's failure.
        describe: The model's description is asked for, not a prediction.
        memory: A description only: whether memory that the client offers can be opened here.
        embeddings: Positions of the images whose embeddings are wanted too.
        pages: Number of the page or frame to look at, from 1, by position; of others the archive's.
    """

    images: tuple[tuple[str, Content], ...]
    top_k: int
    single: bool = False
    describe: bool = False
    memory: bool = False
    embeddings: frozenset[int] = frozenset()
    pages: Mapping[int, int] = field(default_factory=dict)


def parse(row: Row, headers: Headers, settings: Settings) -> Request:
    """Read one request of TorchServe's batch.

    Args:
        row: Body parts by name; values are bytes, or parsed JSON, or text, as TorchServe decodes them.
        headers: Request headers.
        settings: Limits and defaults.

    Raises:
        RequestError: The request is malformed or asks for too much.
    """
    lower = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    if lower.get("describe") == "True":  # what ?customized=true on the management API arrives as
        return Request((), settings.top_k, describe=True)
    top_k = _top_k(lower.get("x-top-k"), settings.top_k)
    request = _images(row, lower.get("content-type", ""), top_k, settings)
    if request.describe:
        return request
    if "x-embeddings" in lower:
        request = replace(request, embeddings=_embeddings(lower["x-embeddings"], len(request.images)))
    if "x-pages" in lower:
        request = replace(request, pages=_pages(lower["x-pages"], len(request.images)))
    return request


def _images(row: Row, content_type: str, top_k: int, settings: Settings) -> Request:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = tuple((name, _content(value)) for name, value in row.items())
        return _checked(Request(images, top_k), settings)
    if "body" not in row and "data" not in row:
        raise RequestError(
            "the request has no body: send image bytes, multipart/mixed or form-data, or application/json"
        )
    body = row["body"] if "body" in row else row["data"]
    if kind == "multipart/mixed":
        return _checked(Request(_parts(body, content_type), top_k), settings)
    if kind == "application/json":
        return _checked(_parse_json(body, top_k), settings)
    return Request((("0", _content(body)),), top_k, single=True)


def _top_k(header: str | None, default: int) -> int:
    if header is None:
        return default
    if not re.fullmatch(r"[1-9][0-9]?|100", header):
        raise RequestError("X-Top-K must be a whole number from 1 to 100")
    return int(header)


def _embeddings(header: str, images: int) -> frozenset[int]:
    if header.strip().lower() == "true":
        return frozenset(range(images))
    if not _POSITIONS.fullmatch(header) or max(found := [int(text) for text in header.split(",")]) >= images:
        raise RequestError("X-Embeddings must be true, or positions of images in the request, from 0: 0,3,17")
    return frozenset(found)


def _pages(header: str, images: int) -> dict[int, int]:
    numbers = [int(text) for text in header.split(",")] if _POSITIONS.fullmatch(header) else []
    if len(numbers) != images:
        raise RequestError("X-Pages must be a number for each image of the request, 0: the model's own page")
    return {position: page for position, page in enumerate(numbers) if page}


def _content(value: Any) -> Content:
    """Undo TorchServe's decoding of text; parsed JSON cannot be an image."""
    if isinstance(value, bytes | bytearray):
        return value
    if isinstance(value, str):
        return value.encode()
    return ImageError("not_an_image", "a JSON document was sent in an image's place")


def _parts(body: bytes | bytearray, content_type: str) -> tuple[tuple[str, Content], ...]:
    """Take a multipart body apart, without copying: TorchServe's front end passes this type on unread."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = str(header.get_param("boundary") or "").encode()
    delimiter = b"\r\n--" + boundary
    # The first delimiter has no line before it, unless there is a preamble.
    first = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)
    if not boundary or first == -1:
        raise RequestError("the multipart body lacks the boundary that its Content-Type names")
    at, content, parts = first + len(delimiter), memoryview(body), []
    while not body.startswith(b"--", at):
        head_end = body.find(b"\r\n\r\n", at)
        end = body.find(delimiter, head_end + 2)  # an empty part's delimiter begins where its headers end
        if head_end < 0 or end < 0:
            raise RequestError("the multipart body ends early")
        name = _NAME.search(body, at, head_end)
        if not name:
            raise RequestError('each part needs a name: Content-Disposition: attachment; name="…"')
        parts.append((name[1].decode(errors="replace"), content[head_end + 4 : end]))
        at = end + len(delimiter)
    return tuple(parts)


def _parse_json(body: Any, top_k: int) -> Request:
    if isinstance(body, bytes | bytearray | str):  # TorchServe forwards what it could not parse
        try:
            body = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the body is not JSON: {str(error)[:150]}") from error
    if not isinstance(body, dict):
        raise RequestError('the body must be {"instances": [...]} or {"describe": true}')
    if body.get("describe") is True:
        return Request((), top_k, describe=True, memory=_opens(body.get("memory")))
    if "memory" in body:
        return Request(_in_memory(body["memory"], body.get("images")), top_k)
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise RequestError('the body must have "instances", a list of {"id": "...", "b64": "..."}')
    return Request(tuple(_instance(index, item) for index, item in enumerate(instances)), top_k)


def _opens(place: Any) -> bool:
    try:
        shared(place)
    except NotSharedError:
        return False
    return True


def _in_memory(place: Any, images: Any) -> tuple[tuple[str, Content], ...]:
    """Take the images, which follow each other without a gap, out of a client's memory, without copying."""
    try:
        memory = shared(place)
    except NotSharedError as error:
        raise RequestError(f"memory: {error}") from error
    try:
        sizes = [(str(name), int(size)) for name, size in images]
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError('"images" must be a list of [id, bytes]') from error
    if any(size < 0 for _, size in sizes) or sum(size for _, size in sizes) != len(memory):
        raise RequestError("the bytes of the images are not those of the memory")
    ends = itertools.accumulate(size for _, size in sizes)
    return tuple((name, memory[end - size : end]) for (name, size), end in zip(sizes, ends, strict=True))


def _instance(index: int, item: Any) -> tuple[str, Content]:
    if not (isinstance(item, dict) and isinstance(item.get("id"), str) and isinstance(item.get("b64"), str)):
        raise RequestError(f'instances[{index}] must be {{"id": "...", "b64": "..."}}, both strings')
    try:
        return item["id"], base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        return item["id"], ImageError("not_an_image", f"b64 is not base64: {error}")


def _checked(request: Request, settings: Settings) -> Request:
    if request.describe:
        return request
    count = len(request.images)
    if count == 0:
        raise RequestError("the request has no images")
    if count > settings.max_images:
        raise RequestError(f"{count} images in one request, at most {settings.max_images} are accepted")
    if len({name for name, _ in request.images}) != count:
        raise RequestError("an id is used for two images of the request: ids must be unique")
    return request


def dump(body: Mapping[str, Any]) -> bytes:
    """Write a reply's body: compact UTF-8 JSON, in one line."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
