"""Ports of loopback, and requests to what listens there."""

import contextlib
import socket
import urllib.request
from collections.abc import Mapping


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ask(
    url: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """The body of the answer.

    Raises:
        OSError: No answer, or a status of 400 and above (HTTPError).
    """
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310 - loopback only
    with urllib.request.urlopen(request, timeout=150) as answer:  # noqa: S310 - the same
        content: bytes = answer.read()
    return content
