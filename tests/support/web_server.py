"""A web server on loopback: files below any path, and answers that are scripted by path."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler

from tests.support.model_server import QuietServer


class WebServer:
    """Serves until closed.

    Attributes:
        files: Content by path.
        redirects: Target by path.
        statuses: Answers that come before the file, by path: each is given once, the last one for ever if it
            has no file.
        asked: How often each path was asked for.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.statuses: dict[str, list[int]] = {}
        self.asked: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        self.asked[path] += 1
        content = self.files.get(path)
        waiting = self.statuses.get(path, [])
        status = 200 if content is not None else 404
        if waiting:
            status = waiting.pop(0) if content is not None or len(waiting) > 1 else waiting[0]
        request.send_response(302 if path in self.redirects else status)
        if path in self.redirects:
            request.send_header("Location", self.redirects[path])
        request.end_headers()  # no length: the end of the connection is the end of the file
        if status == 200 and content is not None and path not in self.redirects:
            request.wfile.write(content)
