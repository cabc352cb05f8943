"""The front for SageMaker and Vertex AI, on a real TorchServe that wants its keys."""

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import imagebatch_hosted as hosted
import pytest
import requests
from imagebatch_serve import behind_a_platform, keys
from PIL import Image

from tools.loopback import free_ports

VERTEX = {"AIP_HEALTH_ROUTE": "/v1/models/m", "AIP_PREDICT_ROUTE": "/v1/models/m:predict"}
MOST = 1 << 20
BROKEN = b"\xff\xd8\xff BROKEN"


@pytest.fixture(scope="module")
def jpeg(photograph: Image.Image, encode: Callable[..., bytes]) -> bytes:
    return encode(photograph, "JPEG")


@pytest.fixture
def front(server: Any) -> Iterator[str]:
    """The front of the served model, with Vertex AI's routes beside SageMaker's."""
    behind = hosted.TorchServe(
        int(urlsplit(server.inference).port or 0),
        "solar-cells",
        lambda: str(keys(server.folder / "key_file.json")["inference"]["key"]),
    )
    (port,) = free_ports(1)
    running = hosted.Front(("127.0.0.1", port), behind, hosted.routes(VERTEX), MOST)
    running.start()
    yield f"http://127.0.0.1:{port}"
    running.shutdown()
    running.server_close()


def test_sagemakers_routes_need_no_key_and_no_name(front: str, server: Any, jpeg: bytes) -> None:
    """One image a request, whatever its type is called; the answer is the handler's own."""
    direct = server.predict(data=jpeg, headers={"Content-Type": "image/jpeg"}).json()
    for kind in ("application/x-image", "image/jpeg", "application/octet-stream", "text/csv"):
        found = requests.post(f"{front}/invocations", data=jpeg, headers={"Content-Type": kind}, timeout=30)
        assert (found.status_code, found.json()) == (200, direct)
    assert requests.get(f"{front}/ping", timeout=30).status_code == 200
    begun = requests.get(f"{front}/execution-parameters", timeout=30).json()
    assert begun["MaxConcurrentTransforms"] * begun["MaxPayloadInMB"] <= 100


def test_a_refused_image_is_an_answer_and_fails_no_job(front: str, jpeg: bytes) -> None:
    """A transform job is failed by every other status: one bad file would cost the others' run."""
    found = requests.post(f"{front}/invocations", data=BROKEN, timeout=30)
    assert (found.status_code, found.json()["images"][0]["error"]["reason"]) == (200, "decode_failed")
    body = {"instances": [{"id": "a", "b64": base64.b64encode(jpeg).decode()}]}
    assert requests.post(f"{front}/invocations", json=body, timeout=30).json()["images"][0]["id"] == "a"
    assert requests.post(f"{front}/invocations", json={"instances": 3}, timeout=30).status_code == 400


def test_vertex_ais_protocol(front: str, server: Any, jpeg: bytes) -> None:
    """A prediction for each instance, in order, and nothing else; `top_k` is a parameter."""
    files = [jpeg, BROKEN, jpeg]
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    address = front + VERTEX["AIP_PREDICT_ROUTE"]
    found = requests.post(address, json={"instances": instances, "parameters": {"top_k": 2}}, timeout=30)
    assert set(found.json()) == {"predictions"}
    first, broken, last = found.json()["predictions"]
    assert first == last
    direct = server.predict(data=jpeg, headers={"Content-Type": "image/jpeg", "X-Top-K": "2"}).json()
    assert {"id": "0"} | first == direct["images"][0]
    assert set(broken) == {"error"}
    assert requests.get(front + VERTEX["AIP_HEALTH_ROUTE"], timeout=30).status_code == 200
    for body in ({"instances": [3]}, {"instances": [{"b64": 3}]}, [], {"instances": [], "parameters": 1}):
        assert requests.post(address, json=body, timeout=30).status_code == 400


def test_bounds_of_a_request(front: str) -> None:
    """No length, too long a body and a route that nobody named are answered at once."""

    def pieces() -> Iterator[bytes]:
        yield b"no length is sent"

    assert requests.post(f"{front}/invocations", data=pieces(), timeout=30).status_code == 411
    assert requests.post(f"{front}/invocations", data=b"0" * (MOST + 1), timeout=30).status_code == 413
    assert requests.post(f"{front}/models", data=b"0", timeout=30).status_code == 404
    assert requests.get(f"{front}/models", timeout=30).status_code == 404


def test_a_model_that_does_not_answer_is_not_ready() -> None:
    """503, which both platforms take for a container that is still starting."""
    (port,) = free_ports(1)
    behind = hosted.TorchServe(port, "solar-cells", lambda: "")
    assert behind.ready().status == 503
    assert behind.invoke(b"0", "image/jpeg").status == 503


def test_the_platforms_port_and_the_only_model(model_store: Path, tmp_path: Path) -> None:
    """TorchServe moves to loopback; two archives, or none, are refused in one line."""
    (port,) = free_ports(1)
    config = {
        "model_store": str(model_store),
        "inference_address": "http://127.0.0.1:8080",
        "max_request_size": "1024",
    }
    front = behind_a_platform(config, {"AIP_HTTP_PORT": str(port)}, tmp_path / "key_file.json")
    assert front.server_address == ("127.0.0.1", port)
    front.server_close()
    assert config["inference_address"] == "http://127.0.0.1:8083"
    store = shutil.copytree(model_store, tmp_path / "store")
    next(store.glob("*.mar")).unlink()
    with pytest.raises(OSError, match="holds 0 archives"):
        behind_a_platform(config | {"model_store": str(store)}, {}, tmp_path / "key_file.json")
