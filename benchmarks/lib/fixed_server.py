"""A model server with a fixed answer: what remains of a stage's time and memory is the stage's own.

Speaks docs/reference/wire.md on a free port of loopback, prints its address, and serves until it is ended.
"""

from __future__ import annotations

import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LABELS = ["mono-sound", "mono-defective", "poly-sound", "poly-defective"]
MODEL = {"name": "solar-cells", "version": "1.0", "digest": "sha256:" + "ab" * 32}
DESCRIPTION = {"model": MODEL, "labels": LABELS, "input": {"crop": 224}, "engine": "fixed"}

_NAME = re.compile(rb'\r\nContent-Disposition: attachment; name="([^"]+)"')


class Server(ThreadingHTTPServer):
    """One thread per connection; the client keeps few."""

    daemon_threads = True
    request_queue_size = 64


class Handler(BaseHTTPRequestHandler):
    """Answers every image with the same probabilities, rotated by its digest so that no class is alone.

    Attributes:
        seconds: How long each pack takes, however many are asked at once: a model server that never tires.
    """

    seconds = 0.0
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write for head and body

    def do_POST(self) -> None:
        """Answers a description or a pack of images."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Type"] == "application/json":
            answer = json.dumps(DESCRIPTION).encode()
        else:
            time.sleep(self.seconds)
            entries = ",".join(_entry(name.decode()) for name in _NAME.findall(body))
            answer = f'{{"model": {json.dumps(MODEL)}, "images": [{entries}]}}'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing: a line per request would cost more than the answer."""


def _entry(name: str) -> str:
    first = int(name[-1], 16) % len(LABELS)  # names end with a digit of the image's SHA-256
    labels = LABELS[first:] + LABELS[:first]
    return f'{{"id": "{name}", "labels": {json.dumps(labels)}, "probabilities": [0.7, 0.15, 0.1, 0.05]}}'


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
