"""JSON of replies: strict, and a fault of the reply where it is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from imagebatch.model_apis.base import ApiFaultError, Fault


def read_json(body: bytes) -> Any:
    """Return the JSON of a reply; the bare words NaN and Infinity are none.

    Raises:
        ApiFaultError: It is no JSON.
    """
    try:
        return json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ApiFaultError(Fault.BAD_REPLY, f"not the expected JSON: {body[:80]!r}") from error


def read_object(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object of a reply.

    Raises:
        ApiFaultError: It is none.
    """
    found = read_json(body)
    if not isinstance(found, dict):
        raise ApiFaultError(Fault.BAD_REPLY, f"not the expected JSON object: {body[:80]!r}")
    return found


def _no_number(word: str) -> float:
    msg = f"{word} is no JSON"
    raise ValueError(msg)
