"""The bodies that each server's documentation asks for, and how its answers read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Files = Sequence[bytes]
Body = tuple[dict[str, str], bytes]
Answer = tuple[list[str], list[float]]  # labels and probabilities, most probable first
PACK = 32

_BOUNDARY = "----photographs"


@dataclass(frozen=True)
class Form:
    """One way to ask.

    Attributes:
        images: Per request.
        write: Headers and body for that many files.
        read: Answers, in order, out of a reply's body.
    """

    images: int
    write: Callable[[Files], Body]
    read: Callable[[bytes], list[Answer]]


def _raw(files: Files) -> Body:
    (content,) = files
    return {"Content-Type": "application/octet-stream"}, content


def _lengths(files: Files) -> bytes:
    return b"".join(part for content in files for part in (len(content).to_bytes(4, "big"), content))


def _pack(files: Files) -> Body:
    return {"Content-Type": "application/octet-stream"}, _lengths(files)


def _upload(name: str, content: bytes) -> Body:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
    body = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + content
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return headers, body + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _one_upload(files: Files) -> Body:
    (content,) = files
    return _upload("file", content)


def _v1(files: Files) -> Body:
    instances = [{"image": {"b64": base64.b64encode(content).decode()}} for content in files]
    return {"Content-Type": "application/json"}, json.dumps({"instances": instances}).encode()


def _v2_base64(files: Files) -> Body:
    data = [base64.b64encode(content).decode() for content in files]
    about = {"name": "images", "shape": [len(data)], "datatype": "BYTES", "data": data}
    return {"Content-Type": "application/json"}, json.dumps({"id": "1", "inputs": [about]}).encode()


def _rows(body: bytes) -> list[Answer]:
    return [(labels, probabilities) for labels, probabilities in json.loads(body)]


def _first(body: bytes) -> list[Answer]:
    """TorchServe's `image_classifier`: one object of label and probability, in falling order."""
    found = json.loads(body)
    return [(list(found), list(found.values()))]


def _predictions(body: bytes) -> list[Answer]:
    return [(labels, probabilities) for labels, probabilities in json.loads(body)["predictions"]]


def _outputs(body: bytes) -> list[Answer]:
    rows = json.loads(body)["outputs"][0]["data"]
    return [(labels, probabilities) for labels, probabilities in map(json.loads, rows)]


def _handler(body: bytes) -> list[Answer]:
    """Our handler's reply (docs/reference/wire.md)."""
    return [(image["labels"], image["probabilities"]) for image in json.loads(body)["images"]]


FORMS = {
    "loop": Form(1, _raw, _first),
    "stock": Form(1, _raw, _first),
    "handler": Form(1, _raw, _handler),
    "raw": Form(1, _raw, _rows),
    "raw-pack": Form(PACK, _pack, _rows),
    "upload": Form(1, _one_upload, _rows),
    "upload-pack": Form(PACK, lambda files: _upload("file", _lengths(files)), _rows),
    "upload-named-pack": Form(PACK, lambda files: _upload("pack", _lengths(files)), _rows),
    "v1": Form(1, _v1, _predictions),
    "v1-pack": Form(PACK, _v1, _predictions),
    "v2": Form(1, _v2_base64, _outputs),
    "v2-pack": Form(PACK, _v2_base64, _outputs),
}
