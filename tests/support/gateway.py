"""A Pushgateway on loopback that tells what it was given."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.parser import text_string_to_metric_families

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Gateway:
    """Takes pushes on loopback as a Pushgateway does: PUT replaces a group, POST replaces its families."""

    def __init__(self) -> None:
        self.pushes: list[tuple[str, str]] = []
        self.groups: dict[str, Values] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                outer.take(self)

            def do_POST(self) -> None:
                outer.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        pushed: Values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }
        names = {name for name, _ in pushed}
        before = {} if request.command == "PUT" else self.groups.get(request.path, {})
        self.groups[request.path] = {key: v for key, v in before.items() if key[0] not in names} | pushed
        self.pushes.append((request.command, request.path))
        request.send_response(200)
        request.end_headers()

    def value(self, group: str, name: str, **labels: str) -> float:
        return self.groups[f"/metrics/job/imagebatch/{group}"][name, tuple(sorted(labels.items()))]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
