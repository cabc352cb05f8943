"""The TorchServe client: keys, replies that cannot be trusted, and what each status means."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from imagebatch.errors import ConfigurationError, UnknownModelError
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.torchserve.client import TorchServe
from imagebatch.model_apis.torchserve.keys import RENEW_BEFORE_SECONDS, KeyFile

from tests.support.model_server import DIGEST, LABELS, ModelServer, Wrong

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can share memory so")
PACK = [ImagePayload(f"{number}-x", f"image {number}".encode()) for number in range(3)]


def client(server: ModelServer, **more: Any) -> TorchServe:
    return TorchServe(server.url, "solar-cells", "", **more)


def fault_of(server: ModelServer, **more: Any) -> ApiFaultError:
    with pytest.raises(ApiFaultError) as caught:
        client(server, **more).predict(PACK, 4)
    return caught.value


def test_describes_and_predicts(server: ModelServer) -> None:
    """Answers come back in order, one per image, with the digest of the model that gave them."""
    api = client(server)
    assert api.describe().model_dump() == {
        "name": "solar-cells",
        "version": "1.0",
        "digest": DIGEST,
        "labels": LABELS,
    }
    reply = api.predict(PACK, 2)
    assert reply.digest == DIGEST
    assert [len(answer.labels) for answer in reply.answers] == [2, 2, 2]
    assert server.images == [image.data for image in PACK]


@LINUX
def test_a_server_that_can_is_handed_memory(server: ModelServer) -> None:
    """What the server sees is the same, nothing is sent twice, and no descriptor is left open."""
    server.opens_memory, server.embedding = True, 4
    api = client(server)
    api.predict(PACK, 2)
    assert server.by_memory == 0  # nobody has asked it yet
    api.describe()
    before = len(list(Path("/proc/self/fd").iterdir()))
    wanted = [PACK[0], ImagePayload("e", b"", embed=True), PACK[1]]
    reply = api.predict(wanted, 2)
    assert server.by_memory == 1
    assert server.images == [image.data for image in (*PACK, *wanted)]
    assert [bool(answer.embedding) for answer in reply.answers] == [False, True, False]
    again = api.prepared(PACK, 2)
    assert again() == again()
    del again
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@LINUX
def test_memory_that_can_no_longer_be_opened_is_sent(server: ModelServer) -> None:
    """Another server in its place, in a container perhaps, gets bodies from then on; no image notices."""
    server.opens_memory = True
    api = client(server)
    api.describe()
    server.opens_memory = False
    assert len(api.predict(PACK, 2).answers) == len(PACK)
    assert server.images == [image.data for image in PACK]
    server.opens_memory = True
    api.predict(PACK, 2)
    assert server.by_memory == 0


@pytest.mark.parametrize("cause", ["switched off", "no memory"])
def test_without_memory_images_are_sent(
    server: ModelServer, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that has none, or a user who wants none, costs nothing but speed."""
    if cause == "no memory":
        monkeypatch.setattr("imagebatch.model_apis.torchserve.client.SharedMemory", _no_memory)
    server.opens_memory = True
    api = client(server, shared_memory=cause == "no memory")
    api.describe()
    api.predict(PACK, 2)
    assert (server.by_memory, len(server.images)) == (0, len(PACK))


def _no_memory(_: Any) -> None:
    raise OSError("no memory")


def test_an_image_error_is_an_answer(server: ModelServer) -> None:
    """One bad image costs its own row, not the request."""
    reply = client(server).predict([PACK[0], ImagePayload("b", b"BROKEN")], 4)
    assert reply.answers[0].reason == ""
    assert (reply.answers[1].reason, reply.answers[1].labels) == ("truncated", ())


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (Wrong(503, b'{"type": "ServiceUnavailableException"}'), Fault.OVERLOADED),
        (Wrong(503, b'{"type": "InternalServerException"}'), Fault.WORKER_DIED),
        (Wrong(500, b"Worker died."), Fault.WORKER_DIED),
        (Wrong(507, b""), Fault.OVERLOADED),
        (Wrong(429, b""), Fault.OVERLOADED),
        (Wrong(413, b""), Fault.TOO_LARGE),
        (Wrong(200, b"<html>proxy error</html>"), Fault.BAD_REPLY),
        (Wrong(400, b"bad request"), Fault.BAD_REPLY),
        (Wrong(200, b"x" * 100, half=True), Fault.UNREACHABLE),
        (Wrong(hang_up=True), Fault.UNREACHABLE),
        (Wrong(pause=2), Fault.TIMED_OUT),
    ],
)
def test_each_failure_has_its_fault(server: ModelServer, wrong: Wrong, fault: Fault) -> None:
    """What the scorer does next hangs on telling these apart."""
    server.faults = lambda _number, _images: wrong
    assert fault_of(server, timeout=0.5).fault is fault


def test_retry_after_is_heard(server: ModelServer) -> None:
    """The server's own wish for a pause is kept, within bounds."""
    server.faults = lambda _number, _images: Wrong(503, b"", {"Retry-After": "7"})
    assert fault_of(server).retry_after == 7.0


def test_nobody_there() -> None:
    """A closed port is 'unreachable', to be waited out."""
    with pytest.raises(ApiFaultError, match="unreachable"):
        TorchServe("http://127.0.0.1:1", "solar-cells", "").describe()


def test_unknown_model(server: ModelServer) -> None:
    """A wrong name is a configuration error that says how to list the right ones."""
    with pytest.raises(UnknownModelError, match=r"does not serve nothing: HTTP 404 .*imagebatch models list"):
        TorchServe(server.url, "nothing", "").describe()


def _swap(reply: dict[str, Any]) -> None:
    reply["images"].reverse()


def _drop(reply: dict[str, Any]) -> None:
    reply["images"].pop()


def _double(reply: dict[str, Any]) -> None:
    reply["images"].append(reply["images"][0])


def _not_a_number(reply: dict[str, Any]) -> None:
    reply["images"][0]["probabilities"][0] = float("nan")


def _rising(reply: dict[str, Any]) -> None:
    reply["images"][0]["probabilities"].reverse()


def _too_large(reply: dict[str, Any]) -> None:
    reply["images"][0]["probabilities"][0] = 1.5


def _label_missing(reply: dict[str, Any]) -> None:
    reply["images"][0]["labels"].pop()


def _fewer_than_asked(reply: dict[str, Any]) -> None:
    for values in (reply["images"][0]["labels"], reply["images"][0]["probabilities"]):
        values.pop()


def _blank_reason(reply: dict[str, Any]) -> None:
    reply["images"][0] = {"id": reply["images"][0]["id"], "error": {"reason": "", "detail": ""}}


@pytest.mark.parametrize(
    "tampering",
    [
        _swap,
        _drop,
        _double,
        _not_a_number,
        _rising,
        _too_large,
        _label_missing,
        _fewer_than_asked,
        _blank_reason,
    ],
)
def test_a_reply_that_cannot_be_is_refused(
    server: ModelServer, tampering: Callable[[dict[str, Any]], None]
) -> None:
    """Answers in another order, too few, too many, or impossible are never taken."""

    def tamper(reply: dict[str, Any]) -> bytes:
        tampering(reply)
        return json.dumps(reply).encode()

    server.tamper = tamper
    assert fault_of(server).fault is Fault.BAD_REPLY


def write_keys(path: Path, inference: str, lives: float = 3600) -> None:
    """As TorchServe writes them, with nine digits of a second."""
    ends = (datetime.now(UTC) + timedelta(seconds=lives)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
    kinds = {"inference": inference, "management": "m"}
    keys = {kind: {"key": key, "expiration time": ends} for kind, key in kinds.items()}
    path.write_text(json.dumps(keys | {"API": {"key": "a"}}))


@contextlib.contextmanager
def token_server(renew: Callable[[str], None]) -> Iterator[str]:
    """A management API that renews keys: an empty 200, as TorchServe answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            renew(f"{self.path} {self.headers['Authorization']}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_refused_key_is_read_again(server: ModelServer, tmp_path: Path) -> None:
    """TorchServe answers an expired key with 400; the new one is in the file, and no image pays for it."""
    path = tmp_path / "key_file.json"
    write_keys(path, "old")
    server.key = "old"
    api = client(server, keys=KeyFile(str(path), "http://127.0.0.1:1"))
    assert len(api.predict(PACK, 4).answers) == 3
    server.key = "new"
    write_keys(path, "new")
    assert len(api.predict(PACK, 4).answers) == 3


def test_keys_that_stay_wrong_are_a_configuration_error(server: ModelServer, tmp_path: Path) -> None:
    """Wrong credentials stop the run with 78: they must never look like bad images."""
    path = tmp_path / "key_file.json"
    write_keys(path, "wrong")
    server.key = "right"
    with pytest.raises(ConfigurationError, match=r"refused the inference key; see --key-file"):
        client(server, keys=KeyFile(str(path), "http://127.0.0.1:1")).predict(PACK, 4)
    with pytest.raises(ConfigurationError, match=r"wants a key: give its key_file.json"):
        client(server).predict(PACK, 4)


def test_a_missing_key_file(tmp_path: Path) -> None:
    """The line names the file and the likely cause."""
    with pytest.raises(ConfigurationError, match="no inference key in it; is TorchServe running"):
        KeyFile(str(tmp_path / "nothing.json"), "http://127.0.0.1:1").key("inference")


def test_a_key_is_renewed_before_it_expires(server: ModelServer, tmp_path: Path) -> None:
    """A run that outlives its key never sees it refused: the new one is asked for in time."""
    path = tmp_path / "key_file.json"
    asked: list[str] = []

    def renew(query: str) -> None:
        asked.append(query)
        write_keys(path, "second", lives=3600)
        server.key = "second"

    with token_server(renew) as management:
        write_keys(path, "first", lives=RENEW_BEFORE_SECONDS + 1)
        server.key = "first"
        api = client(server, keys=KeyFile(str(path), management))
        api.predict(PACK, 4)
        assert asked == []
        write_keys(path, "first", lives=1)
        api = client(server, keys=KeyFile(str(path), management))
        api.predict(PACK, 4)
        api.predict(PACK, 4)
    assert asked == ["/token?type=inference Bearer a"]


def test_a_key_that_cannot_be_renewed_is_used_to_its_end(server: ModelServer, tmp_path: Path) -> None:
    """Where the management API is out of reach, the key in the file is used as long as it is accepted."""
    path = tmp_path / "key_file.json"
    write_keys(path, "only", lives=1)
    server.key = "only"
    api = client(server, keys=KeyFile(str(path), "http://127.0.0.1:1"))
    assert len(api.predict(PACK, 4).answers) == 3
