"""Ports of loopback, and requests to what listens there."""

import http.client
import json
import socket
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any


def free_ports(count: int) -> list[int]:
    """Find as many ports that nobody listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ask(
    address: str,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    method: str | None = None,
    seconds: float = 20.0,
) -> bytes:
    """Make one request.

    Args:
        address: its URL.
        headers: request headers.
        body: bytes are sent as they are, anything else but None as JSON.
        method: HTTP method; default GET, or POST with a body.
        seconds: of silence after which it is given up.

    Returns:
        The body of the answer.

    Raises:
        OSError: not reachable, or an HTTP status of 400 and above (HTTPError).
    """
    data, own = body if isinstance(body, bytes) else None, dict(headers or {})
    if body is not None and data is None:
        # Only with a body: TorchServe takes the header alone for an order that it cannot read.
        data, own["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(address, data, own, method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            content: bytes = answer.read()
    except http.client.HTTPException as error:  # half an answer, or none of HTTP
        raise OSError(f"{type(error).__name__}: {error}") from error
    return content


def fetch(address: str, headers: Mapping[str, str] | None = None) -> Any:
    """Read JSON.

    Args:
        address: its URL.
        headers: request headers.

    Raises:
        OSError: as of `ask`.
        ValueError: the answer is not JSON.
    """
    return json.loads(ask(address, headers))
