"""What SageMaker and Vertex AI ask of a serving container, in front of the TorchServe of the same container.

Both ask on one port, without any key, and know nothing of models' names. TorchServe stays on loopback with
its keys; this process holds them. Standard library only.

SageMaker: `GET /ping`, `POST /invocations` with one image as the body, `GET /execution-parameters`. Vertex
AI: the routes that AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE name, `{"instances": [{"b64": …}]}` in and
`{"predictions": […]}` out, an element per image in order.
"""

import http.client
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

JSON = "application/json"
BYTES = "application/octet-stream"
# As a batch transform begins: a request's size times their number is at most 100 MB there.
EXECUTION = {"MaxConcurrentTransforms": 6, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 16}
PATIENCE = 300.0  # seconds for one answer of TorchServe
# An image that the handler refuses is an answer about that image, not a failure of the request.
REFUSED = 422


class Answer(NamedTuple):
    """A status and a JSON body."""

    status: int
    body: bytes


class Routes(NamedTuple):
    """Paths that the platform asks.

    Attributes:
        health: 200 as soon as a worker of the model answers.
        invocations: The body is what the handler takes.
        predict: The body has `instances`.
    """

    health: frozenset[str]
    invocations: frozenset[str]
    predict: frozenset[str]


def routes(environment: Mapping[str, str]) -> Routes:
    """Read the routes that the platform names; SageMaker's are always there."""
    health = {"/ping", environment.get("AIP_HEALTH_ROUTE") or "/ping"}
    predict = {environment.get("AIP_PREDICT_ROUTE")} - {None, "", "/invocations"}
    return Routes(frozenset(health), frozenset({"/invocations"}), frozenset(map(str, predict)))


class TorchServe:
    """One model of the TorchServe beside.

    Args:
        port: Of its inference API on loopback.
        model: Name of the model.
        key: Reads the inference key that is valid now; empty if there is none yet.
    """

    def __init__(self, port: int, model: str, key: Callable[[], str]) -> None:
        self._port, self._path, self._key = port, f"/predictions/{model}", key

    def ask(self, body: bytes, kind: str, **headers: str) -> Answer:
        """Send a request, on a connection of its own: an error closes it.

        Args:
            body: As the handler takes it.
            kind: Its content type.
            headers: More of them.

        Returns:
            503 where TorchServe does not answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        proof = {"Authorization": f"Bearer {self._key()}", "Content-Type": kind}
        try:
            connection.request("POST", self._path, body, proof | headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            return _error(503, f"TorchServe does not answer: {error}")
        finally:
            connection.close()

    def ready(self) -> Answer:
        """Ask a worker to describe the model: TorchServe's own /ping is well without any."""
        found = self.ask(b'{"describe": true}', JSON)
        return found if found.status == http.HTTPStatus.OK else _error(503, "no worker answers yet")

    def invoke(self, body: bytes, kind: str) -> Answer:
        """Pass a body on; what is no JSON and no multipart is one image, whatever the platform calls it."""
        known = kind.partition(";")[0].strip().lower()
        found = self.ask(body, kind if known == JSON or known.startswith("multipart/") else BYTES)
        return Answer(200, found.body) if found.status == REFUSED else found

    def predict(self, body: bytes) -> Answer:
        """Answer a request in the form of Vertex AI; `parameters` may hold `top_k`."""
        try:
            content = json.loads(body)
            instances = [
                {"id": str(place), "b64": one["b64"]} for place, one in enumerate(content["instances"])
            ]
            top_k = (content.get("parameters") or {}).get("top_k")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return _error(400, f'the body must be {{"instances": [{{"b64": "…"}}]}}: {error!r}')
        headers = {} if top_k is None else {"X-Top-K": str(top_k)}
        found = self.ask(json.dumps({"instances": instances}).encode(), JSON, **headers)
        if found.status != http.HTTPStatus.OK:
            return found
        images = json.loads(found.body)["images"]
        return _json(200, {"predictions": [{k: v for k, v in one.items() if k != "id"} for one in images]})


class Front(ThreadingHTTPServer):
    """Answers the platform until the process ends.

    Args:
        address: Host and port to listen on.
        behind: The model.
        asked: The platform's routes.
        most: Bytes of the largest body.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], behind: TorchServe, asked: Routes, most: int) -> None:
        self.behind, self.asked, self.most = behind, asked, most
        super().__init__(address, _Handler)

    def start(self) -> None:
        """Answer in a thread of its own."""
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE  # of a client that says nothing
    server: Front

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.server.asked.health:
            self._send(self.server.behind.ready())
        elif path == "/execution-parameters":
            self._send(_json(200, EXECUTION))
        else:
            self._send(_error(404, "no such route"))

    def do_POST(self) -> None:
        path, front = self.path.partition("?")[0], self.server
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or int(length) > front.most:
            self.close_connection = True  # the body is not read: what follows is no request
            self._send(
                _error(413, f"more than {front.most} bytes")
                if length.isdecimal()
                else _error(411, "no length")
            )
            return
        body = self.rfile.read(int(length))
        if path in front.asked.predict:
            self._send(front.behind.predict(body))
        elif path in front.asked.invocations:
            self._send(front.behind.invoke(body, self.headers.get("Content-Type") or BYTES))
        else:
            self._send(_error(404, "no such route"))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", JSON)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: TorchServe logs the request."""


def _json(status: int, content: Any) -> Answer:
    return Answer(status, json.dumps(content, ensure_ascii=False).encode())


def _error(status: int, text: str) -> Answer:
    return _json(status, {"error": text})
