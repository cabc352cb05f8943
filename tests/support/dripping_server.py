"""A server on loopback that answers every connection with one byte now and then, for ever."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Self

# What comes at once, and what then comes byte by byte, again and again.
DRIPS: dict[str, tuple[bytes, bytes]] = {
    "nothing but a status": (b"", b"HTTP/1.1 200 OK"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "one endless header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "a body with a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "a body without a length": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x"),
    "small chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "one endless chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n", b"x"),
    "an endless trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ", b"x"),
}
_PAUSE = 0.02  # seconds between two bytes


class DrippingServer:
    """Drips until closed.

    Args:
        kind: A name out of DRIPS; empty: it takes connections and neither reads nor sends anything.
        tls: For an encrypted connection.
    """

    def __init__(self, kind: str, tls: ssl.SSLContext | None = None) -> None:
        self._kind, self._tls = kind, tls
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            if not self._kind:
                self._stop.wait()
                return
            with connection:
                connection.recv(65_536)
                at_once, drops = DRIPS[self._kind]
                connection.sendall(at_once)
                for drop in _for_ever(drops):
                    if self._stop.wait(_PAUSE):
                        return
                    connection.sendall(drop)


def _for_ever(drops: bytes) -> Iterator[bytes]:
    while True:
        for at in range(len(drops)):
            yield drops[at : at + 1]
