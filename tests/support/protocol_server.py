"""A server on loopback that speaks the protocols of other makers' servers, as these were seen to speak them.

`make conformance` holds the clients to the real ones (tests/system/conformance/). The answers are those of
`model_server`, so that any two protocols must agree.
"""

from __future__ import annotations

import base64
import json
import math
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from tests.support.model_server import DIGEST, LABELS, QuietServer, Wrong, answer_to, send

MODEL = "solar-cells"
LENGTH = "Inference-Header-Content-Length"


class _NotTakenError(Exception):
    """A request that the protocol's server refuses with a status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Habits:
    """How a server behaves where servers differ.

    Attributes:
        protocol: `oip`, `kserve_v1` or `mlflow`.
        raw: Of `oip`, takes raw bytes behind the JSON and not base64, as Triton does.
        tells: Names the image that it cannot read, in the tensor or field `error`; else answers 500.
        describes: Its metadata has labels and digest.
        most: Images of a request; 0: any number.
        names: Of the input tensors.
        datatype: Of each: `BYTES` for files, `UINT8` or `FP32` for pixels, answered by their bytes.
        shape: Of each.
        grpc: Of `oip`, is asked over gRPC: `grpc_server`.
    """

    protocol: str = "oip"
    raw: bool = True
    tells: bool = True
    describes: bool = True
    most: int = 0
    names: list[str] = field(default_factory=lambda: ["image"])
    datatype: str = "BYTES"
    shape: tuple[int, ...] = (-1, 1)
    grpc: bool = False


class ProtocolServer:
    """Serves until closed."""

    def __init__(self, habits: Habits, *, secured: ssl.SSLContext | None = None) -> None:
        self.habits = habits
        self.faults: Callable[[list[bytes]], Wrong | None] = lambda _images: None
        self.tamper: Callable[[dict[str, Any]], Any] = lambda reply: reply
        self.answers: Callable[[bytes], list[float]] = probabilities
        self.ready = True
        self.header: tuple[str, str] | None = None  # without which nobody is let in
        self.digest = DIGEST
        self.version = "1.0"
        self.asked: list[str] = []
        self.packs: list[int] = []
        self.tensors: list[tuple[list[int], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                send(self, outer.refusal(self.headers) or outer.told(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                send(self, outer.refusal(self.headers) or outer.inferred(self.path, self.headers, body))

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        if secured:
            self._server.socket = secured.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' * bool(secured)}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refusal(self, headers: Any) -> Wrong | None:
        """Refuses who lacks the header, and repeats what was sent in its place."""
        if self.header is None or headers.get(self.header[0]) == self.header[1]:
            return None
        return Wrong(401, f"not let in: {headers.get(self.header[0])}".encode())

    def told(self, path: str) -> Wrong:
        """Answers a GET: metadata, configuration, readiness."""
        self.asked.append(path)
        habits = self.habits
        if habits.protocol in {"mlflow", "http"}:
            return Wrong(200 if path == "/ping" and self.ready else 404, b"\n")
        root = f"/v2/models/{MODEL}" if habits.protocol == "oip" else f"/v1/models/{MODEL}"
        if not path.startswith(root):
            return Wrong(404, b'{"error":"Model with name nothing does not exist."}')
        rest = path.removeprefix(root)
        if rest.startswith("/versions/") and not habits.raw:
            return Wrong(501, b'{"error":"Model versioning not supported yet."}')
        if habits.protocol == "kserve_v1":
            return _json({"name": MODEL, "ready": self.ready})
        return self._told_by_oip(rest.removeprefix(f"/versions/{self.version}"))

    def _told_by_oip(self, rest: str) -> Wrong:
        if rest == "/ready":
            return Wrong(200 if self.ready else 400)  # and nothing in the body
        if rest == "/config":
            told = {"labels": json.dumps(LABELS), "digest": self.digest} if self.habits.describes else {}
            values = {name: {"string_value": value} for name, value in told.items()}
            found = {"name": MODEL, "parameters": values, "max_batch_size": self.habits.most}
            return _json(found) if self.habits.raw else Wrong(404, b"{}")
        return _json(self._metadata())

    def inferred(self, path: str, headers: Any, body: bytes) -> Wrong:
        """Answers a POST."""
        self.asked.append(path)
        try:
            identity, files = self._files(path, headers, body)
        except _NotTakenError as refused:
            return Wrong(refused.status, json.dumps({"error": str(refused)}).encode())
        self.packs.append(len(files))
        wrong = self.faults(files)
        if wrong:
            return wrong
        errors = [answer_to(data, 4).get("error") for data in files]
        if any(errors) and not self.habits.tells:
            return Wrong(500, b"Internal Server Error")
        if self.habits.protocol == "oip":
            return self._tensors(identity, files, errors)
        if self.habits.protocol != "http":
            return _json(self.tamper({"predictions": [self._row(data) for data in files]}))
        found = [self._named(data) for data in files]
        return _json(found[0] if self.habits.most == 1 else self.tamper({"results": found}))

    def _metadata(self) -> dict[str, Any]:
        habits = self.habits
        if not habits.describes and not habits.raw:
            return {"name": MODEL, "versions": None, "platform": "", "inputs": [], "outputs": []}
        shape = list(habits.shape)
        inputs = [{"name": name, "datatype": habits.datatype, "shape": shape} for name in habits.names]
        output = {"name": "probabilities", "datatype": "FP32", "shape": [-1, 4]}
        if habits.describes and not habits.raw:
            output["parameters"] = {"labels": LABELS, "digest": self.digest}
        return {"name": MODEL, "versions": [self.version], "inputs": inputs, "outputs": [output]}

    def _files(self, path: str, headers: Any, body: bytes) -> tuple[str, list[bytes]]:
        protocol = self.habits.protocol
        if MODEL not in path and protocol != "mlflow":
            raise _NotTakenError(404, "Model with name nothing does not exist.")
        if protocol == "oip":
            length = int(headers[LENGTH]) if LENGTH in headers else None
            return self._of_oip(json.loads(body[:length]), None if length is None else body[length:])
        if self.habits.most == 1 and protocol == "http":
            return "", [body]
        asked = json.loads(body)
        if protocol == "kserve_v1":
            return "", [base64.b64decode(instance["image"]["b64"]) for instance in asked["instances"]]
        if protocol == "http":
            return "", [base64.b64decode(item["content"]) for item in asked["pictures"]]
        texts = asked.get("inputs") or [row[0] for row in asked["dataframe_split"]["data"]]
        return "", [base64.b64decode(text) for text in texts]

    def _of_oip(self, asked: dict[str, Any], rest: bytes | None) -> tuple[str, list[bytes]]:
        (tensor,) = asked["inputs"]
        if rest is not None and not self.habits.raw:
            raise _NotTakenError(500, "'utf-8' codec can't decode byte 0x89 in position 166")
        if self.habits.datatype != "BYTES":
            code = {"UINT8": "B", "FP32": "f"}[self.habits.datatype]
            return asked["id"], self._pixels(
                tensor,
                struct.pack(f"<{len(tensor['data'])}{code}", *tensor["data"]) if rest is None else rest,
            )
        if rest is not None:
            return self._raw(asked, rest)
        if self.habits.raw:
            raise _NotTakenError(500, "the model cannot read text")
        return asked["id"], [base64.b64decode(text) for text in tensor["data"]]

    def _pixels(self, tensor: dict[str, Any], data: bytes) -> list[bytes]:
        shape, size = tensor["shape"], {"UINT8": 1, "FP32": 4}[self.habits.datatype]
        count = shape[0] if len(shape) == 4 else 1
        if tensor["datatype"] != self.habits.datatype or size * math.prod(shape) != len(data):
            raise _NotTakenError(400, f"unexpected input {tensor['datatype']} {shape} of {len(data)} bytes")
        if self.habits.most and count > self.habits.most:
            raise _NotTakenError(400, f"inference request batch-size must be <= {self.habits.most}")
        self.tensors.append((shape, data))
        return [data[len(data) // count * at :][: len(data) // count] for at in range(count)]

    def _raw(self, asked: dict[str, Any], rest: bytes) -> tuple[str, list[bytes]]:
        (tensor,) = asked["inputs"]
        files = elements(rest)
        if tensor["name"] not in self.habits.names or tensor["shape"] != [len(files), 1]:
            raise _NotTakenError(400, f"unexpected input {tensor['name']} {tensor['shape']}")
        if self.habits.most and len(files) > self.habits.most:
            raise _NotTakenError(
                400, f"inference request batch-size must be <= {self.habits.most} for '{MODEL}'"
            )
        return asked["id"], files

    def _named(self, data: bytes) -> Any:
        answer = answer_to(data, len(LABELS))
        if "error" not in answer and self.answers is not probabilities:
            return {"scores": self.answers(data)}
        return answer if "error" in answer else {"names": answer["labels"], "scores": answer["probabilities"]}

    def _row(self, data: bytes) -> Any:
        answer = answer_to(data, len(LABELS))
        return {"error": answer["error"]} if "error" in answer else self.answers(data)

    def _tensors(self, identity: str, files: list[bytes], errors: list[Any]) -> Wrong:
        rows = [
            [0.0] * len(LABELS) if error else self.answers(data)
            for data, error in zip(files, errors, strict=True)
        ]
        flat = [value for row in rows for value in row]
        output: dict[str, Any] = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [len(rows), len(rows[0])],
        }
        reply: dict[str, Any] = {"id": identity, "model_name": MODEL, "model_version": self.version}
        behind = b""
        if self.habits.raw:
            behind = struct.pack(f"<{len(flat)}f", *flat)
            output["parameters"] = {"binary_data_size": len(behind)}
        else:
            output["data"] = flat
        reply["outputs"] = [output]
        if self.habits.tells:
            texts = [f"{error['reason']}: {error['detail']}" if error else "" for error in errors]
            reply["outputs"].append(
                {"name": "error", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}
            )
        head = json.dumps(self.tamper(reply)).encode()
        return Wrong(body=head + behind, headers={LENGTH: str(len(head))} if self.habits.raw else {})


def probabilities(data: bytes) -> list[float]:
    """The fixed answer to an image, in the order of the classes."""
    answer = answer_to(data, len(LABELS))
    found = dict(zip(answer["labels"], answer["probabilities"], strict=True))
    return [found[label] for label in LABELS]


def elements(data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor: four bytes of length before each."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _json(content: Any) -> Wrong:
    return Wrong(body=json.dumps(content).encode(), headers={"Content-Type": "application/json"})
