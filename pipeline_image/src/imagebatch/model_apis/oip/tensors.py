"""Tensors of the Open Inference Protocol, in JSON and behind it as binary data.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and the extension
"binary data" of Triton: JSON first, whose length is in a header, then each tensor's bytes in order.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imagebatch.model_apis.base import ApiFaultError, Fault
from imagebatch.model_apis.json_reply import read_object

JSON_LENGTH = "Inference-Header-Content-Length"
_NUMBERS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Request:
    """A request's body and the headers that belong to it."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output: numbers as float32 of its shape, or texts in order; neither where it is of another type."""

    datatype: str
    shape: tuple[int, ...]
    numbers: npt.NDArray[np.float32] | None = None
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Inference:
    """A reply: which model and version answered, its parameters, and its outputs by name."""

    model: str
    version: str
    identity: str
    parameters: Mapping[str, Any]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Given:
    """The tensor of a request: raw, or as text.

    Attributes:
        name: Of the tensor.
        datatype: `BYTES`, `UINT8` or `FP32`.
        shape: Of it, images first.
        raw: Whether it is sent as binary data.
        elements: Of BYTES: files, or their base64.
        content: Of numbers: little-endian bytes, or their texts with commas between them.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    raw: bool
    elements: Sequence[bytes] = ()
    content: bytes = b""

    @property
    def binary(self) -> bytes:
        """Its content as the binary extension has it: each element behind its length."""
        pieces = (part for each in self.elements for part in (len(each).to_bytes(4, "little"), each))
        return self.content or b"".join(pieces)

    @property
    def written(self) -> bytes:
        """Its content as a list in JSON."""
        texts = b'["' + b'","'.join(self.elements) + b'"]' if self.elements else b""
        return texts or b"[" + self.content + b"]"

    @property
    def parameters(self) -> dict[str, str]:
        """What it says of itself."""
        return {"content_type": "base64"} if self.elements and not self.raw else {}


def files_tensor(name: str, shape: Sequence[int], files: Sequence[bytes], *, raw: bool) -> Given:
    """Make a BYTES tensor whose elements are files as they are, or their base64."""
    return Given(name, "BYTES", shape, raw, files if raw else [base64.b64encode(file) for file in files])


def request_of(identity: str, given: Given) -> Request:
    """Make the request that holds a tensor: behind the JSON where it is raw, else in it."""
    head = {"name": given.name, "shape": list(given.shape), "datatype": given.datatype}
    if given.raw:
        data = given.binary
        tensor = head | {"parameters": {"binary_data_size": len(data)}}
        said = _json({"id": identity, "inputs": [tensor], "parameters": {"binary_data_output": True}})
        headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(said))}
        return Request(headers, said + data)
    opened = _json(head | ({"parameters": given.parameters} if given.parameters else {}))[:-1]
    start = _json({"id": identity})[:-1]
    body = b"".join((start, b',"inputs":[', opened, b',"data":', given.written, b"}]}"))
    return Request({"Content-Type": "application/json"}, body)


def read_inference(headers: Mapping[str, str], body: bytes) -> Inference:
    """Read a reply, with binary outputs or without.

    Raises:
        ApiFaultError: It is none, or ends early.
    """
    head, rest = _split(headers, body)
    found = read_object(head)
    outputs: dict[str, Tensor] = {}
    try:
        for output in found["outputs"]:
            size = (output.get("parameters") or {}).get("binary_data_size")
            data, rest = (None, rest) if size is None else (rest[:size], rest[size:])
            if data is not None and len(data) != size:
                raise ApiFaultError(Fault.BAD_REPLY, "a binary tensor that ends early")
            outputs[output["name"]] = read_tensor(output, data)
        return Inference(
            model=str(found.get("model_name") or ""),
            version=str(found.get("model_version") or ""),
            identity=str(found.get("id") or ""),
            parameters=_parameters(found),
            outputs=outputs,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ApiFaultError(Fault.BAD_REPLY, f"outputs that are none: {head[:80]!r}") from error


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _split(headers: Mapping[str, str], body: bytes) -> tuple[bytes, bytes]:
    length = headers.get(JSON_LENGTH)
    if length is None:
        return body, b""
    if not length.isdecimal() or int(length) > len(body):
        raise ApiFaultError(Fault.BAD_REPLY, f"{JSON_LENGTH}: {length[:20]!r} of {len(body)} bytes")
    return body[: int(length)], body[int(length) :]


def _parameters(found: Mapping[str, Any]) -> dict[str, Any]:
    """Put the parameters of a reply and of its outputs together."""
    merged: dict[str, Any] = {}
    for holder in (*found["outputs"], found):
        merged |= holder.get("parameters") or {}
    return merged


def read_tensor(output: Mapping[str, Any], data: bytes | None) -> Tensor:
    """Read one output.

    Args:
        output: Its datatype, shape and, where there are no bytes, data.
        data: Its content as the binary extension has it; None: there is none.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: It is none.
    """
    datatype, shape = str(output["datatype"]), tuple(int(side) for side in output["shape"])
    if min(shape, default=0) < 0:
        msg = "a negative side"
        raise ValueError(msg)
    if datatype == "BYTES":
        texts = _texts(output, data)
        if len(texts) != math.prod(shape):
            msg = "a shape that does not fit"
            raise ValueError(msg)
        return Tensor(datatype, shape, texts=texts)
    if datatype not in _NUMBERS:
        return Tensor(datatype, shape)
    with np.errstate(over="ignore"):
        written = _NUMBERS[datatype]
        found = np.asarray(output["data"], float) if data is None else np.frombuffer(data, written)
        return Tensor(datatype, shape, numbers=found.reshape(shape).astype(np.float32))


def _texts(output: Mapping[str, Any], data: bytes | None) -> tuple[str, ...]:
    if data is None:
        return tuple(str(text) for text in np.asarray(output["data"], object).ravel())
    texts, at = [], 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            msg = "a text that ends early"
            raise ValueError(msg)
        texts.append(data[start:at].decode("utf-8", "replace"))
    return tuple(texts)
