"""A server on loopback that answers with bytes: what a download really goes through."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class _Files(http.server.BaseHTTPRequestHandler):
    files: Mapping[str, bytes] = {}

    def do_GET(self) -> None:
        data = self.files.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header(
            "Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream"
        )
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve bytes by path, and 404 for any other; give the server's address."""
    handler = type("Files", (_Files,), {"files": files})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
