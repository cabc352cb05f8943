"""A real HTTP server on loopback that speaks the handler's wire format (docs/reference/wire.md).

Its answers depend on the image's bytes alone, so that any two runs over the same files must agree. What it
does wrong is scripted: `faults` is asked about every request before it is answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

LABELS = ["mono-sound", "mono-defective", "poly-sound", "poly-defective"]
DIGEST = "sha256:" + "ab" * 32

Images = list[tuple[str, bytes]]


@dataclass
class Wrong:
    """One wrong answer: a status and a body, a pause before it, half of it, a hang-up or a reset."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    hang_up: bool = False
    half: bool = False
    reset: bool = False


Fault = Callable[[int, Images], Wrong | None]


class QuietServer(ThreadingHTTPServer):
    """Takes a crowd of clients, and does not mind one that is killed while it is answered."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class ModelServer:
    """Serves until closed; counts what it was asked."""

    def __init__(self) -> None:
        self.digest = DIGEST
        self.labels = LABELS
        self.tells_classes = True  # where two labels are the same
        self.embedding = 0
        self.head: dict[str, Any] = {}  # what it declares beside its labels; `tamper` makes answers that fit
        self.opens_memory = False
        self.looks_at_pages = False
        self.input: dict[str, Any] = {"crop": 224}
        self.by_memory = 0
        self.embedded: list[bytes] = []
        self.key = ""
        self.faults: Fault = lambda _number, _images: None
        self.tamper: Callable[[dict[str, Any]], bytes] = lambda reply: json.dumps(reply).encode()
        self.requests = 0
        self.images: list[bytes] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request; a proxy overrides this."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return send(request, Wrong(400, b'{"code": 400, "type": "InvalidKeyException"}'))
        if not request.path.startswith("/predictions/solar-cells"):
            return send(request, Wrong(404, b'{"code": 404, "type": "ModelNotFoundException"}'))
        asked = json.loads(body) if request.headers["Content-Type"] == "application/json" else {}
        if asked.get("describe"):
            memory = {"memory": True} if self.opens_memory and "memory" in asked else {}
            return send(request, Wrong(body=json.dumps(self.description() | memory).encode()))
        if asked and not self.opens_memory:
            return send(request, Wrong(400, b'{"error": "memory: it cannot be opened"}'))
        self.by_memory += bool(asked)
        images = in_memory(asked) if asked else parts(body, request.headers["Content-Type"])
        with self._lock:
            self.requests += 1
            number = self.requests
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            wrong = self.faults(number, images) or Wrong(body=self._good(images, request.headers))
        finally:
            with self._lock:  # before the reply: whoever has read it may ask again at once
                self._at_once -= 1
        return send(request, wrong)

    def description(self) -> dict[str, Any]:
        model = {"name": "solar-cells", "version": "1.0", "digest": self.digest}
        gives = {"embedding": self.embedding} if self.embedding else {}
        gives |= {"pages": True} if self.looks_at_pages else {}
        return (
            {"model": model, "labels": self.labels, "input": self.input, "engine": "fixed"}
            | self.head
            | gives
        )

    def _good(self, images: Images, headers: Message) -> bytes:
        wanted = [int(text) for text in headers.get("X-Embeddings", "").split(",") if text]
        top_k = int(headers["X-Top-K"])
        with self._lock:
            self.images += [data for _, data in images]
            self.embedded += [images[at][1] for at in wanted]
        pages = [int(text) for text in headers.get("X-Pages", "").split(",") if text] or [0] * len(images)
        entries = [
            {
                "id": name,
                **({"page": page} if page else {}),
                **answer_to(data + bytes(page), top_k, self.labels),
            }
            for (name, data), page in zip(images, pages, strict=True)
        ]
        if not self.tells_classes:
            entries = [{key: value for key, value in one.items() if key != "classes"} for one in entries]
        for at in wanted if self.embedding else []:
            entries[at]["embedding"] = embedding_of(images[at][1], self.embedding)
        return self.tamper({"model": self.description()["model"], "images": entries})


def answer_to(data: bytes, top_k: int, labels: list[str] = LABELS) -> dict[str, Any]:
    """The fixed answer to an image: an error if its bytes say so, else probabilities from its digest."""
    if b"BROKEN" in data:
        return {"error": {"reason": "truncated", "detail": "image file is truncated"}}
    weights = [1 + byte for byte in hashlib.sha256(data).digest()[: len(labels)]]
    ranked = sorted(range(len(labels)), key=lambda index: (-weights[index], index))[:top_k]
    classes = {} if len(set(labels)) == len(labels) else {"classes": ranked}
    return {
        "labels": [labels[index] for index in ranked],
        "probabilities": [round(weights[index] / sum(weights), 7) for index in ranked],
    } | classes


def embedding_of(data: bytes, length: int) -> str:
    """Base64 of float32 numbers in [0, 1] that depend on the image's bytes alone."""
    numbers = [byte / 255 for byte in hashlib.shake_256(data).digest(length)]
    return base64.b64encode(struct.pack(f"<{length}f", *numbers)).decode()


def in_memory(asked: dict[str, Any]) -> Images:
    """The images of a request that names memory; this server is a thread of the process that holds it."""
    with Path("/proc", str(asked["memory"]["pid"]), "fd", str(asked["memory"]["fd"])).open("rb") as memory:
        assert memory.read(16).hex() == asked["memory"]["token"]
        return [(name, memory.read(size)) for name, size in asked["images"]]


def parts(body: bytes, content_type: str) -> Images:
    """The images of a multipart request, with their names."""
    boundary = b"--" + content_type.partition("boundary=")[2].encode()
    images = []
    for part in body.split(boundary)[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        name = head.partition(b' name="')[2].partition(b'"')[0].decode()
        images.append((name, data[:-2]))
    return images


def send(request: BaseHTTPRequestHandler, answer: Wrong) -> None:
    """Sends an answer, or as much of it as it says."""
    time.sleep(answer.pause)
    if answer.hang_up:
        request.close_connection = True
        return
    request.send_response(answer.status)
    for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(
            answer.body[: len(answer.body) // 2] if answer.half or answer.reset else answer.body
        )
    request.close_connection = answer.half or answer.reset
    if answer.reset:  # closing without lingering sends RST in the place of FIN
        request.wfile.flush()
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
