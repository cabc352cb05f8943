"""One deadline for a whole HTTP request: a server that sends a byte now and then cannot hold its client.

The time-outs of requests and urllib3 are for each read. Here every read and write of a connection ends at the
deadline of the thread that does it: while connecting, sending, in the headers, in a body with a length or in
chunks.
"""

from __future__ import annotations

import contextlib
import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import requests
from requests.adapters import HTTPAdapter
from typing_extensions import Buffer, override
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Retry

__all__ = ["BoundedAdapter", "BoundedRetry", "BoundedSession", "Clock", "Http", "Https", "within"]


class Clock:
    """A deadline.

    Args:
        ends: When it is over, by `time.monotonic`.
    """

    def __init__(self, ends: float) -> None:
        self.ends = ends

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return not self.left


class _Running(threading.local):
    clock = Clock(math.inf)


_running = _Running()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[Clock]:
    """Bound all requests that this thread makes in the block, retries and redirects included.

    Args:
        seconds: Longest time; of two blocks, one in the other, the earlier end counts.
    """
    before = _running.clock
    _running.clock = Clock(min(before.ends, time.monotonic() + seconds))
    try:
        yield _running.clock
    finally:
        _running.clock = before


class _Reader(io.RawIOBase):
    """What a connection reads from: each read waits until the deadline at most, whatever the time-out is."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket until this is closed, too

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int | None:
        with _bounded(self._sock):
            return self._raw.readinto(buffer)

    @override
    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedSocket:
    """A socket as `http.client` uses it, bounded by the deadline of the thread that uses it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock))

    def sendall(self, data: Buffer) -> None:
        with _bounded(self._sock):
            self._sock.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@contextlib.contextmanager
def _bounded(sock: socket.socket) -> Iterator[None]:
    left = _running.clock.left
    if not left:
        raise TimeoutError("the whole request took too long")
    usual = sock.gettimeout()
    if left == math.inf or (usual is not None and usual <= left):
        yield
        return
    sock.settimeout(left)
    try:
        yield
    finally:
        sock.settimeout(usual)


class Http(HTTPConnection):
    """A connection that keeps to the deadline."""

    @override
    def connect(self) -> None:
        _shorten(self)
        super().connect()
        self.sock = _bound(self.sock)


class Https(HTTPSConnection):
    """The same, encrypted."""

    @override
    def connect(self) -> None:
        _shorten(self)
        super().connect()
        self.sock = _bound(self.sock)


def _shorten(connection: HTTPConnection) -> None:
    left = _running.clock.left
    if not left:
        raise TimeoutError("the whole request took too long")
    usual = connection.timeout
    if left < math.inf:
        connection.timeout = min(usual, left) if isinstance(usual, int | float) else left


def _bound(sock: socket.socket) -> socket.socket:
    return cast("socket.socket", _BoundedSocket(sock))  # all that is asked of it


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = Https


class BoundedRetry(Retry):
    """Retries until the deadline, and not with a pause after it."""

    @override
    def increment(
        self, method: str | None = None, url: str | None = None, *args: Any, **more: Any
    ) -> BoundedRetry:
        error = more.get("error")
        if error is not None and _running.clock.over:
            raise error
        return super().increment(method, url, *args, **more)


class BoundedAdapter(HTTPAdapter):
    """An adapter of requests whose connections keep to the deadline.

    Args:
        retries: As `HTTPAdapter` takes them.
    """

    pools: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": _HttpPool, "https": _HttpsPool}

    def __init__(self, retries: Retry | int = 0) -> None:
        super().__init__(max_retries=retries)
        self.poolmanager.pool_classes_by_scheme = self.pools


class BoundedSession(requests.Session):
    """A session in which `timeout` is for a whole request, its body included, if that is not streamed.

    Neither a proxy nor credentials are taken out of this user's environment and files.

    Args:
        adapter: For both schemes; one without retries if not given.
    """

    def __init__(self, adapter: HTTPAdapter | None = None) -> None:
        super().__init__()
        self.trust_env = False
        for scheme in ("http://", "https://"):
            self.mount(scheme, adapter or BoundedAdapter())

    @override
    def send(self, request: requests.PreparedRequest, **how: Any) -> requests.Response:
        timeout = how.get("timeout")
        seconds = sum(timeout) if isinstance(timeout, tuple) else timeout
        with within(math.inf if seconds is None else seconds):
            return super().send(request, **how)
