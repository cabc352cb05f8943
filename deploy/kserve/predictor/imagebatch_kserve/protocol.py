"""Images out of requests, and replies out of answers: V1 (`instances`) and V2 (tensors), REST and gRPC."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput

INPUT = "image"
OUTPUT = "probabilities"
SCORE = "score"
ERROR = "error"
_FORMS = '{"image": {"b64": "…"}}, {"b64": "…"} or base64 itself'


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that did not arrive, or that the model refuses: a fixed word, and what was wrong."""

    reason: str
    detail: str


Content = bytes | Unreadable
Answer = npt.NDArray[np.float32] | Unreadable
"""One image's: probabilities by class index, or one score, or why there are none."""


def images_of(payload: Any) -> list[Content]:
    """Read the images of a request of either version.

    Args:
        payload: A V1 body as parsed JSON, or a V2 request.

    Raises:
        InvalidInput: It is malformed; answered with 400, or INVALID_ARGUMENT by gRPC.
    """
    if isinstance(payload, InferRequest):
        return _of_tensor(payload)
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InvalidInput(f'the body must be {{"instances": […]}}, each {_FORMS}')
    return [_of_instance(number, instance) for number, instance in enumerate(instances)]


def reply_v1(
    answers: Sequence[Answer], labels: Sequence[str], head: str, told: Mapping[str, str]
) -> dict[str, Any]:
    """Make the reply to a V1 request: `predictions`, and of what model they are.

    Args:
        answers: Of the images, in order.
        labels: By class index.
        head: What the numbers mean.
        told: Further fields, such as the digest.
    """
    predictions = [_prediction(answer, labels, head) for answer in answers]
    return {"predictions": predictions, "labels": [*labels], **told}


def reply_v2(
    request: InferRequest, answers: Sequence[Answer], output: tuple[str, int], told: Mapping[str, str]
) -> InferResponse:
    """Make the reply to a V2 request: FP32 (images, numbers), and a text per image, empty where it was read.

    Args:
        request: What is answered.
        answers: Of its images, in order.
        output: Name of the tensor with the numbers, and how many an image has.
        told: Parameters of the reply; `version` is its version.
    """
    name, numbers = output
    rows = np.zeros((len(answers), numbers), np.float32)
    texts = np.full(len(answers), "", object)
    for number, answer in enumerate(answers):
        if isinstance(answer, Unreadable):
            texts[number] = f"{answer.reason}: {answer.detail}"
        else:
            rows[number] = answer
    outputs = [
        InferOutput(name, list(rows.shape), "FP32", data=rows),
        InferOutput(ERROR, list(texts.shape), "BYTES", data=texts),
    ]
    if request.from_grpc:  # whose conversion takes lists, and raw bytes as they are
        for tensor in outputs:
            tensor.set_data_from_numpy(tensor.data, binary_data=request.use_binary_outputs)
    return InferResponse(
        request.id or uuid.uuid4().hex,  # the server fails without one
        request.model_name,
        outputs,
        model_version=told["version"],
        parameters={name: value for name, value in told.items() if name != "version"},
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )


def _prediction(answer: Answer, labels: Sequence[str], head: str) -> dict[str, Any]:
    if isinstance(answer, Unreadable):
        return {"error": {"reason": answer.reason, "detail": answer.detail}}
    # The shortest text of each float32, as TorchServe's replies have it: 0.1 and not 0.10000000149011612.
    shortest = [float(str(value)) for value in answer]
    if head == "regression":
        return {SCORE: shortest[0]}
    label = {} if head == "multilabel" else {"label": labels[int(answer.argmax())]}
    return label | {OUTPUT: shortest}


def _of_instance(number: int, instance: Any) -> Content:
    found = instance.get(INPUT, instance) if isinstance(instance, dict) else instance
    text = found.get("b64") if isinstance(found, dict) else found
    if not isinstance(text, str):
        raise InvalidInput(f"instances[{number}] must be {_FORMS}")
    return _decoded(text)


def _of_tensor(request: InferRequest) -> list[Content]:
    if len(request.inputs) != 1:
        raise InvalidInput(f"one tensor with the images is expected, and {len(request.inputs)} came")
    (tensor,) = request.inputs
    if tensor.datatype == "UINT8":
        return [_of_bytes(tensor)]
    if tensor.datatype != "BYTES":
        raise InvalidInput(f"{tensor.name} is {tensor.datatype}: send files as BYTES, or one file as UINT8")
    elements = _array(tensor).ravel().tolist()
    if not elements:
        raise InvalidInput("the request has no images")
    as_text = (tensor.parameters or {}).get("content_type") == "base64"
    return [_of_element(element, as_text=as_text) for element in elements]


def _of_bytes(tensor: InferInput) -> bytes:
    values = _array(tensor)
    if values.size != values.shape[-1]:
        raise InvalidInput(
            f"a UINT8 tensor is one file: its shape is [bytes] or [1, bytes], not {tensor.shape}"
        )
    return values.astype(np.uint8).tobytes()


def _array(tensor: InferInput) -> npt.NDArray[Any]:
    """Return a tensor's elements in its shape.

    Raises:
        InvalidInput: They do not fit it.
    """
    try:
        found: npt.NDArray[Any] = tensor.as_numpy()
    except InvalidInput:
        raise
    except Exception as error:  # whatever the library makes of lengths and numbers that cannot be
        raise InvalidInput(f"{tensor.name}: {error}") from error
    if found.ndim == 0:
        raise InvalidInput(f"{tensor.name} has no dimension")
    return found


def _of_element(element: Any, *, as_text: bool) -> Content:
    """Read one element: text is base64, as in JSON; bytes are the file, unless they are said to be text."""
    if isinstance(element, bytes) and not as_text:
        return element
    if not isinstance(element, bytes | str):
        raise InvalidInput(f"an element of the tensor is no text: {str(element)[:40]}")
    return _decoded(element)


def _decoded(text: str | bytes) -> Content:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        return Unreadable("not_an_image", f"b64 is not base64: {error}")
