"""The protocol over gRPC: what each status means, and what differs from REST."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from imagebatch.errors import ConfigurationError, UnknownModelError
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload, ModelApi
from imagebatch.model_apis.oip import client as oip
from imagebatch.model_apis.oip import over_grpc
from imagebatch.model_apis.oip.protocol import open_inference_pb2 as messages
from imagebatch.settings import ApiSettings

from tests.support.calls import Call, scored
from tests.support.grpc_server import GrpcServer
from tests.support.images import jpeg
from tests.support.model_server import LABELS, Wrong
from tests.support.protocol_server import Habits, ProtocolServer
from tools.loopback import free_ports
from tools.paths import ROOT

PACK = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(3)]
TRITON = Habits(raw=True, grpc=True)
MLSERVER = Habits(raw=False, tells=False, grpc=True)
PROTOCOL = ROOT / "pipeline_image/src/imagebatch/model_apis/oip/protocol"


def client(url: str, version: str = "", **settings: Any) -> ModelApi:
    return open_backend("oip", ApiSettings(api_url=url, **settings), "solar-cells", version)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (Wrong(503, b"shutting down"), Fault.UNREACHABLE),
        (Wrong(503, b"Model with name solar-cells is not ready."), Fault.OVERLOADED),
        (Wrong(429, b"queue is full"), Fault.OVERLOADED),
        (Wrong(404, b"loading"), Fault.OVERLOADED),
        (Wrong(413, b"Received message larger than max (5000000 vs. 4194304)"), Fault.TOO_LARGE),
        (Wrong(400, b"inference request batch-size must be <= 8 for 'solar-cells'"), Fault.TOO_LARGE),
        (Wrong(400, b"unexpected shape"), Fault.BAD_REPLY),
        (Wrong(422, b"no such codec"), Fault.BAD_REPLY),
        (Wrong(501, b"gone"), Fault.BAD_REPLY),
        (Wrong(500, b"Internal server error"), Fault.WORKER_DIED),
        (Wrong(502, b"Exception calling application"), Fault.WORKER_DIED),
        (Wrong(504, b"slow"), Fault.TIMED_OUT),
        (Wrong(pause=6), Fault.TIMED_OUT),
    ],
)
def test_each_status_has_its_fault(wrong: Wrong, fault: Fault) -> None:
    """What the scorer does next hangs on telling these apart, as over REST."""
    with GrpcServer(TRITON) as server:
        api = client(server.url, request_timeout=3 if wrong.pause else 30)
        api.predict(PACK, 4)
        server.known.faults = lambda _images: wrong
        with pytest.raises(ApiFaultError) as caught:
            api.predict(PACK, 4)
        api.close()
    assert caught.value.fault is fault


@pytest.mark.parametrize("status", [401, 403])
def test_a_client_that_is_refused_is_told_so(status: int) -> None:
    """Credentials must never look like bad images."""
    with GrpcServer(TRITON) as server:
        api = client(server.url)
        api.predict(PACK, 4)
        server.known.faults = lambda _images: Wrong(status, b"no token")
        with pytest.raises(ConfigurationError, match=r"refuses this client: gRPC [A-Z_]+ no token"):
            api.predict(PACK, 4)
        api.close()


def test_the_answers_are_those_over_rest(tmp_path: Path) -> None:
    """Files, base64 and digest: the wire changes nothing of a run, not even what it is pinned to."""
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"labels": LABELS}))
    for habits in (TRITON, MLSERVER):
        with GrpcServer(habits) as server, ProtocolServer(habits) as rest:
            over_grpc, over_rest = (client(each.url, model_card=str(card)) for each in (server, rest))
            assert over_grpc.predict(PACK, 4) == over_rest.predict(PACK, 4)
            if habits.raw:
                assert over_grpc.describe() == over_rest.describe()
            over_grpc.close()


def test_a_run_goes_over_grpc(call: Call, images: Path, tmp_path: Path) -> None:
    """The stages find the model by the URL alone; a server that goes away for a moment costs no row."""
    with GrpcServer(TRITON) as server:
        again = iter([Wrong(503, b"restarting")] * 2)
        server.known.faults = lambda _images: next(again, None)
        options = ("--backend", "oip", "--api-url", server.url)
        outcome = scored(call, "r", images, *options, asked=("--api-url", server.url))
    assert outcome.code == 0, outcome.err
    rows = (tmp_path / "runs" / "r" / "output" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + len(list(images.rglob("*.jpg")))


def test_nobody_there_is_unreachable_and_a_name_that_is_not_served_is_told() -> None:
    """The first is waited for, the second ends the run with its name."""
    (port,) = free_ports(1)
    with pytest.raises(ApiFaultError) as caught:
        client(f"grpc://127.0.0.1:{port}").describe()
    assert caught.value.fault is Fault.UNREACHABLE
    with GrpcServer(TRITON) as server:
        other = open_backend("oip", ApiSettings(api_url=server.url), "nothing", "")
        with pytest.raises(UnknownModelError, match="nothing"):
            other.describe()
        server.known.ready = False
        with pytest.raises(ApiFaultError, match="not ready"):
            client(server.url).ready()


@pytest.mark.parametrize(
    ("url", "backend", "message"),
    [
        ("grpc://127.0.0.1", "oip", "grpc://host:port is meant"),
        ("grpc://127.0.0.1:1/v2", "oip", "grpc://host:port is meant"),
        ("grpc://me:secret@127.0.0.1:1", "oip", "grpc://host:port is meant"),
        ("grpc://127.0.0.1:99999", "oip", "grpc://host:port is meant"),
        ("grpc://127.0.0.1:1", "kserve_v1", "kserve_v1 speaks HTTP: --api-url grpc:// is for --backend oip"),
    ],
)
def test_a_url_that_cannot_be_is_told(url: str, backend: str, message: str) -> None:
    """At once, with what is meant; and never with what might be a password in it."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_backend(backend, ApiSettings(api_url=url), "solar-cells", "")
    assert "secret" not in str(caught.value)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages' own image has no gRPC."""
    monkeypatch.setattr(oip, "_installed", lambda name: name != "grpc")
    with pytest.raises(ConfigurationError, match=r"needs grpc: install the extra, imagebatch\[grpc\]"):
        client("grpc://127.0.0.1:1")


def test_the_messages_are_those_of_the_proto(tmp_path: Path) -> None:
    """What is checked in is what protoc makes of the .proto, to the byte."""
    make = ["-m", "grpc_tools.protoc", f"-I{PROTOCOL}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, *make, "open_inference.proto"], check=True, cwd=PROTOCOL)
    for name in ("open_inference_pb2.py", "open_inference_pb2.pyi"):
        assert (PROTOCOL / name).read_text() == (tmp_path / name).read_text(), name


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_384, 5_000_000])
def test_a_request_written_in_two_pieces_is_the_request(size: int) -> None:
    """Whatever its length takes to write: a server reads the same message."""
    head = messages.ModelInferRequest(model_name="m", id="1")
    head.inputs.add(name="image", datatype="UINT8", shape=[size])
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    found = messages.ModelInferRequest.FromString(over_grpc._with_raw(head, content))  # noqa: SLF001 (what is sent is not visible from outside)
    assert list(found.raw_input_contents) == [content]
    found.ClearField("raw_input_contents")
    assert found == head
