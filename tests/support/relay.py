"""A proxy that stands between a client and a real HTTP server, and spoils what passes as it is told."""

import http.client
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler
from threading import Thread
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.model_server import Images, QuietServer, Wrong, parts, send

_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


@dataclass(frozen=True)
class Asked:
    """A request on its way; `number` counts from 1."""

    number: int
    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def images(self) -> Images:
        """The images that it asks about; none for a description."""
        kind = self.headers.get("Content-Type", "")
        return parts(self.body, kind) if kind.startswith("multipart/") else []

    @property
    def scores(self) -> bool:
        """Whether it asks about images of a run: by the Open Inference Protocol, more than one.

        There a model is known by its answers to single ones.
        """
        if not self.path.endswith("/infer"):
            return bool(self.images)
        head = int(self.headers.get("Inference-Header-Content-Length", len(self.body)))
        return bool(json.loads(self.body[:head])["inputs"][0]["shape"][0] > 1)


Before = Callable[[Asked], Wrong | None]
Passed = Callable[[Asked], Asked]
After = Callable[[Asked, Wrong], Wrong]


class Relay:
    """Passes requests on until closed.

    Args:
        upstream: The real server, `http://host:port`.
        before: Asked about each request; what it returns is sent in place of the server's reply.
        passed: Given each request; what it returns is what the server gets.
        after: Asked about each reply of the server; what it returns is sent.

    Attributes:
        url: Where it listens, on loopback.
        scored: Images in the requests that the server has answered with 200.
    """

    def __init__(
        self,
        upstream: str,
        *,
        before: Before = lambda _: None,
        passed: Passed = lambda asked: asked,
        after: After = lambda _, reply: reply,
    ) -> None:
        self._address = urlsplit(upstream).netloc
        self._before = before
        self._passed = passed
        self._after = after
        self._numbers = itertools.count(1)
        self.requests = self.scored = 0
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):  # any method
                    return lambda: answer(self)
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        number = next(self._numbers)
        asked = Asked(number, request.command, request.path, request.headers, body)
        self.requests = max(self.requests, number)
        wrong = self._before(asked)
        send(request, wrong or self._after(asked, self._forward(self._passed(asked))))

    def _forward(self, asked: Asked) -> Wrong:
        connection = http.client.HTTPConnection(self._address, timeout=300)
        try:
            connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
            for name, value in _kept(asked.headers.items()):
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(asked.body)))
            connection.endheaders(asked.body)
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException):
            return Wrong(hang_up=True)  # as the client would see it without a proxy
        finally:
            connection.close()
        if reply.status == http.client.OK:
            self.scored += len(asked.images)
        headers = dict(_kept(reply.getheaders()))
        if asked.method == "HEAD" and (length := reply.getheader("Content-Length")):
            headers["Content-Length"] = length
        return Wrong(reply.status, content, headers)


def _kept(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _OF_ONE_HOP]
