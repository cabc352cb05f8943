"""A model server in a storm: refusals, broken connections, and replies that must not be believed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.model_server import DIGEST, Images, ModelServer, Wrong, answer_to, send
from tests.support.storms import BUSY, LATER, SUSPICIOUS, Storm


class Moody(ModelServer):
    """A server that does to each request what the storm says."""

    def __init__(self, images: list[bytes]) -> None:
        self.storm: Storm | None = None
        self.away = self.broken = False
        self.on_request = lambda _number: None
        self._index = {data: number for number, data in enumerate(images)}
        self._asked: Counter[int] = Counter()
        self._counting = threading.Lock()
        super().__init__()
        self.faults = self._fault

    def begin(self, storm: Storm | None) -> None:
        """Forgets the storm before, and starts another; None is calm."""
        self.storm, self.requests, self.on_request = storm, 0, lambda _number: None
        self._asked.clear()
        self.relent()

    def relent(self) -> None:
        """Ends what an interruption began."""
        self.away = self.broken = False
        self.key, self.digest = "", DIGEST

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        describe = request.headers["Content-Type"] == "application/json"
        if self.away or (self.broken and describe):
            request.rfile.read(int(request.headers["Content-Length"]))
            return send(request, Wrong(503, BUSY) if self.away else Wrong(200, b"{}"))
        return super().answer(request)

    def _fault(self, number: int, images: Images) -> Wrong | None:
        self.on_request(number)
        storm = self.storm
        if storm is None:
            return None
        if len(images) > storm.largest:
            return Wrong(413)
        held = sorted(self._index[data] for _, data in images if data in self._index)
        with self._counting:
            names = [self._of_image(storm, image) for image in held]
        name = next((name for name in names if name), "")
        return self._wrong(name, images) if name else None

    def _of_image(self, storm: Storm, image: int) -> str:
        count = self._asked[image]
        self._asked[image] += 1
        if image in storm.poison:
            return storm.poison[image]
        faults = storm.passing.get(image, [])
        return faults[count] if count < len(faults) else ""

    def _wrong(self, name: str, images: Images) -> Wrong:
        fixed = LATER.get(name) or SUSPICIOUS.get(name)
        if fixed:
            return fixed
        entries = [{"id": key, **answer_to(data, 4)} for key, data in images]
        whole = self._reply(entries)
        others: dict[str, Wrong] = {
            "413": Wrong(413),
            "hang up": Wrong(hang_up=True),
            "truncated": Wrong(body=whole, half=True),
            "reset": Wrong(body=whole, reset=True),
            "stalled": Wrong(body=whole, pause=1.5),
        }
        return others.get(name) or Wrong(body=self._reply(tampered(name, entries)))

    def _reply(self, entries: list[dict[str, Any]]) -> bytes:
        return json.dumps({"model": self.description()["model"], "images": entries}).encode()


def tampered(name: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers that must not be believed."""
    first, rest = dict(entries[0]), entries[1:]
    changes: dict[str, Any] = {
        "NaN": {"probabilities": [float("nan")] * 4},
        "above one": {"probabilities": [1.5, 0.5, 0.25, 0.125]},
        "rising": {"probabilities": [0.1, 0.2, 0.3, 0.4]},
        "fewer labels": {"labels": first.get("labels", [])[:1], "probabilities": [0.5]},
        "unknown label": {"labels": ["a", "b", "c", "d"]},
        "no answer": {"labels": [], "probabilities": []},
        "blank reason": {"error": {"reason": "", "detail": ""}},
        "another request's": {"id": "99-0123456789abcdef"},
    }
    match name:
        case "one too few":
            return rest
        case "one too many":
            return [*entries, {**first, "id": "more"}]
        case "doubled":
            return [first, first, *rest[1:]] if rest else [first, first]
        case "shuffled":
            return [*rest, first] if rest else []
    return [{key: value for key, value in first.items() if key != "error"} | changes[name], *rest]
