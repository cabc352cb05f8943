"""A real TorchServe with the shipped configuration, driven over HTTP."""

import base64
import fcntl
import io
import json
import os
import shutil
import socket
import stat
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagebatch_memory
import numpy as np
import psutil
import pytest
import requests
from imagebatch_archive import content_digest
from imagebatch_handler import ImageBatchHandler
from imagebatch_model import ImageModel, Settings
from PIL import Image

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def jpeg(photograph: Image.Image, encode: Callable[..., bytes]) -> bytes:
    return encode(photograph, "JPEG")


@pytest.fixture(scope="module")
def expected(archive_folder: Path, jpeg: bytes) -> dict[str, Any]:
    """What the modules answer about the photograph without any server."""
    model = ImageModel(archive_folder, Settings())
    return model.entry(model.predict(model.infer(model.decode(jpeg)), 4))


def entries(response: requests.Response, status: int = 200) -> list[dict[str, Any]]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    images: list[dict[str, Any]] = response.json()["images"]
    return images


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream"])
def test_one_image_as_the_body(kind: str, server: Any, jpeg: bytes, expected: dict[str, Any]) -> None:
    """The served answer is, to the last digit, the one that the modules give in this process."""
    response = server.predict(data=jpeg, headers={"Content-Type": kind})
    assert entries(response) == [{"id": "0"} | expected]


def test_many_images_in_one_multipart_request(
    server: Any, jpeg: bytes, photograph: Image.Image, encode: Callable[..., bytes], expected: dict[str, Any]
) -> None:
    """Good and bad images in one request: each has its own entry, in order, under its own id."""
    parts = {
        "good": ("a.jpg", jpeg, "image/jpeg"),
        "empty": ("b.jpg", b"", "image/jpeg"),
        "text": ("c.jpg", b"hello", "text/plain"),
        "cut": ("d.jpg", jpeg[:5000], "image/jpeg"),
        "json": ("e.jpg", b"{}", "application/json"),
        "layers": ("f.psd", b"8BPS\0\1" + bytes(20), "image/vnd.adobe.photoshop"),
        "body": ("g.png", encode(photograph, "PNG"), "application/octet-stream"),
        "\u00fc 1": ("h.jpg", jpeg, "image/jpeg"),
    }
    answers = entries(server.predict(files=parts))
    assert [answer["id"] for answer in answers] == list(parts)
    reasons = {answer["id"]: answer["error"]["reason"] for answer in answers if "error" in answer}
    assert reasons == {
        "empty": "empty",
        "text": "not_an_image",
        "cut": "truncated",
        "json": "not_an_image",
        "layers": "unsupported_format",
    }
    assert answers[0] == {"id": "good"} | expected
    assert answers[7]["labels"] == expected["labels"]


def test_many_images_in_one_mixed_request(server: Any, jpeg: bytes, expected: dict[str, Any]) -> None:
    """The type that TorchServe does not read gives the same answers, whatever the part says of itself."""
    kinds = {"good": jpeg, "cut": jpeg[:5000], "json, =": b"{}"}
    part = '--b\r\nContent-Type: application/json\r\nContent-Disposition: attachment; name="{}"\r\n\r\n'
    body = b"".join(part.format(name).encode() + data + b"\r\n" for name, data in kinds.items()) + b"--b--"
    answers = entries(server.predict(data=body, headers={"Content-Type": "multipart/mixed; boundary=b"}))
    assert answers[0] == {"id": "good"} | expected
    reasons = {answer["id"]: answer["error"]["reason"] for answer in answers[1:]}
    assert reasons == {"cut": "truncated", "json, =": "not_an_image"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can share memory so")
def test_many_images_in_memory(server: Any, jpeg: bytes, expected: dict[str, Any]) -> None:
    """A worker, which is another process, takes the images out of this one's memory."""
    images = {"good": jpeg, "empty": b"", "cut": jpeg[:5000]}
    descriptor = os.memfd_create(imagebatch_memory.NAME, os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, (token := bytes(16)) + b"".join(images.values()))
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
        place = {"pid": os.getpid(), "fd": descriptor, "token": token.hex()}
        assert server.predict(json={"describe": True, "memory": place}).json()["memory"] is True
        sizes = [[name, len(data)] for name, data in images.items()]
        answers = entries(server.predict(json={"memory": place, "images": sizes}))
    finally:
        os.close(descriptor)
    assert answers[0] == {"id": "good"} | expected
    reasons = {answer["id"]: answer["error"]["reason"] for answer in answers[1:]}
    assert reasons == {"empty": "empty", "cut": "truncated"}
    gone = server.predict(json={"memory": place, "images": sizes})
    assert (gone.status_code, gone.json()["error"][:8]) == (400, "memory: ")


def test_many_images_as_json(server: Any, jpeg: bytes, expected: dict[str, Any]) -> None:
    """Base64 gives the same answers as bytes, and here an id may hold any character."""
    images = [('=x, "\n\u00fc', base64.b64encode(jpeg).decode()), ("y", "no base64!"), ("z", "")]
    body = {"instances": [{"id": name, "b64": content} for name, content in images]}
    first, second, third = entries(server.predict(json=body))
    assert first == {"id": images[0][0]} | expected
    assert second["error"]["reason"] == "not_an_image"
    assert third["error"]["reason"] == "empty"


def test_a_hundred_images_in_one_request(server: Any, jpeg: bytes, expected: dict[str, Any]) -> None:
    """A request of more bytes than TorchServe accepts by default is answered for every image."""
    padded = jpeg + bytes(80_000)  # what follows a JPEG's end does not count
    answers = entries(server.predict(files={f"{index}": padded for index in range(100)}))
    assert [answer["id"] for answer in answers] == [str(index) for index in range(100)]
    assert all(answer["probabilities"] == expected["probabilities"] for answer in answers)


def test_a_single_bad_image_answers_422(server: Any, jpeg: bytes) -> None:
    """Where the body is the image, its failure is in the status too."""
    response = server.predict(data=jpeg[:3000], headers={"Content-Type": "image/jpeg"})
    (answer,) = entries(response, 422)
    assert answer["error"]["reason"] == "truncated"
    assert "\n" not in answer["error"]["detail"]


def test_embeddings_come_for_the_images_asked(
    server: Any, archive_folder: Path, jpeg: bytes, expected: dict[str, Any]
) -> None:
    """The served vector is, bit for bit, the engine's; its neighbours and a bad image come without one."""
    model = ImageModel(archive_folder, Settings())
    model.infer(model.decode(jpeg))
    features = model.features()
    assert features is not None
    parts = {"a": jpeg, "b": jpeg, "cut": jpeg[:5000]}
    answers = entries(server.predict(files=parts, headers={"X-Embeddings": "1,2"}))
    assert answers[0] == {"id": "a"} | expected
    found = np.frombuffer(base64.b64decode(answers[1].pop("embedding")), "<f4")
    assert found.tobytes() == features.tobytes()
    assert answers[1] == {"id": "b"} | expected
    assert answers[2]["error"]["reason"] == "truncated"
    kind = {"Content-Type": "image/jpeg"}
    (alone,) = entries(server.predict(data=jpeg, headers=kind | {"X-Embeddings": "true"}))
    assert len(base64.b64decode(alone["embedding"])) == 4 * len(features)
    refused = server.predict(data=jpeg, headers=kind | {"X-Embeddings": "7"})
    assert (refused.status_code, "X-Embeddings must be true" in refused.json()["error"]) == (400, True)


def test_the_page_asked_for_is_seen(server: Any, jpeg: bytes, expected: dict[str, Any]) -> None:
    """Each entry is about its page and says so; a page that is not there is that image's error."""
    stream = io.BytesIO()
    first = Image.new("RGB", (64, 48), "navy")
    first.save(stream, "TIFF", save_all=True, append_images=[Image.open(io.BytesIO(jpeg))])
    parts = {"a": stream.getvalue(), "b": stream.getvalue(), "c": stream.getvalue(), "d": jpeg}
    plain, second, third, alone = entries(server.predict(files=parts, headers={"X-Pages": "0,2,3,1"}))
    assert "page" not in plain
    assert plain["probabilities"] != expected["probabilities"]
    assert second == {"id": "b", "page": 2} | expected
    assert third["page"] == 3
    assert third["error"]["reason"] == "decode_failed"
    assert alone == {"id": "d", "page": 1} | expected


def test_an_engine_without_embeddings_says_so(plain_folder: Path, jpeg: bytes) -> None:
    """Asked for what its graph does not give, the handler answers 400 with one line; else it scores."""
    handler = ImageBatchHandler()
    handler.model = ImageModel(plain_folder, Settings())
    handler.identity = {"name": "solar-cells", "version": "1.0", "digest": handler.model.digest}
    statuses: list[int] = []
    for asked in ({}, {"X-Embeddings": "true"}):
        context = SimpleNamespace(
            get_all_request_header=lambda _, asked=asked: {"Content-Type": "image/jpeg", **asked},
            set_response_content_type=lambda *_: None,
            set_response_status=lambda code, **_: statuses.append(code),
        )
        (body,) = handler.handle([{"body": jpeg}], context)
    assert statuses == [200, 400]
    assert json.loads(body) == {"error": "X-Embeddings: this archive's graph for openvino gives no features"}


def test_top_k(server: Any, jpeg: bytes, expected: dict[str, Any]) -> None:
    """X-Top-K chooses the number of labels; nonsense is refused."""
    for wanted, got in (("1", 1), ("2", 2), ("100", 5)):
        (answer,) = entries(server.predict(files={"a": jpeg}, headers={"X-Top-K": wanted}))
        assert len(answer["labels"]) == len(answer["probabilities"]) == got
        assert answer["labels"][:4] == expected["labels"][:got]
    response = server.predict(files={"a": jpeg}, headers={"X-Top-K": "many"})
    assert (response.status_code, response.json()) == (
        400,
        {"error": "X-Top-K must be a whole number from 1 to 100"},
    )


@pytest.mark.parametrize(
    "body",
    [b"{", b"{}", b'{"instances": []}', b'{"instances": [{"id": "a", "b64": ""}, {"id": "a", "b64": ""}]}'],
)
def test_a_malformed_request_answers_400_in_one_line(server: Any, body: bytes) -> None:
    """A mistake in the request is told apart from a bad image and from a broken server."""
    response = server.predict(data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/json"
    assert response.json().keys() == {"error"}
    assert "\n" not in response.text


def test_both_descriptions_are_the_same_and_name_the_archive(
    server: Any, model_store: Path, tmp_path: Path
) -> None:
    """The digest that the server tells is the one that anybody computes from the .mar's files."""
    described = server.predict(json={"describe": True}).json()
    url = f"{server.management}/models/solar-cells"
    headers = server.key("management")
    managed = requests.get(url, params={"customized": "true"}, headers=headers, timeout=30).json()
    assert managed[0]["customizedMetadata"] == described
    with zipfile.ZipFile(model_store / "solar-cells.mar") as archive:
        archive.extractall(tmp_path)
    assert described["model"] == {
        "name": "solar-cells",
        "version": "1.0",
        "digest": content_digest(tmp_path),
    }
    assert described["engine"] == "openvino"
    assert len(described["labels"]) == 5


@pytest.mark.parametrize("key", [None, "wrong", "management"])
def test_no_prediction_without_the_inference_key(key: str | None, server: Any, jpeg: bytes) -> None:
    """No key, an invented one and the other service's one are refused, with TorchServe's 400."""
    value = server.key(key)["Authorization"] if key == "management" else f"Bearer {key}"
    headers = {"Content-Type": "image/jpeg"} | ({"Authorization": value} if key else {})
    url = f"{server.inference}/predictions/solar-cells"
    response = requests.post(url, data=jpeg, headers=headers, timeout=30)
    assert response.status_code == 400
    assert response.json()["type"] == "InvalidKeyException"


def test_keys_are_private_and_last_a_night(server: Any) -> None:
    """Only the owner reads the keys, and they are valid for the hours that the configuration says."""
    file = server.folder / "key_file.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = json.loads(file.read_text())
    assert keys.keys() == {"management", "inference", "API"}
    for kind in ("management", "inference"):
        until = datetime.fromisoformat(keys[kind]["expiration time"])
        assert timedelta(hours=11) < until - datetime.now(UTC) <= timedelta(hours=12)


def test_only_loopback_is_listened_on(server: Any) -> None:
    """No socket of the server or its workers is reachable from another machine."""
    port = int(server.inference.rpartition(":")[2])
    connections = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    owner = next(c.pid for c in connections if c.laddr.port == port)
    family = {owner} | {child.pid for child in psutil.Process(owner).children(recursive=True)}
    mine = [c for c in connections if c.pid in family]
    assert len(mine) >= 5
    assert {c.laddr.ip.removeprefix("::ffff:") for c in mine} == {"127.0.0.1"}


def test_workers_do_not_see_secrets(server: Any) -> None:
    """A variable whose name says that it is a secret does not reach the code of an archive."""
    port = int(server.inference.rpartition(":")[2])
    owner = next(c.pid for c in psutil.net_connections("tcp") if c.laddr.port == port and c.pid)
    assert psutil.Process(owner).environ()["IMAGEBATCH_TEST_CREDENTIAL"] == "hidden"
    (worker, *_) = [
        child
        for child in psutil.Process(owner).children(recursive=True)
        if "model_service_worker" in str(child.cmdline())
    ]
    assert "IMAGEBATCH_TEST_CREDENTIAL" not in worker.environ()


def test_metrics_are_in_prometheus_format(server: Any, jpeg: bytes) -> None:
    """The metrics address counts predictions of the model."""
    server.predict(files={"a": jpeg})
    text = requests.get(f"{server.metrics}/metrics", timeout=30).text
    assert 'ts_inference_requests_total{model_name="solar-cells"' in text


def register(server: Any, **parameters: object) -> requests.Response:
    query = {"initial_workers": 1, "synchronous": "true"} | parameters
    return requests.post(
        f"{server.management}/models", params=query, headers=server.key("management"), timeout=120
    )


def repack(source: Path, target: Path, **files: str) -> None:
    """Copy an archive with some text files replaced or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in files and not name.endswith("/"):
                new.writestr(name, old.read(name))
        for name, text in files.items():
            new.writestr(name, text)


def test_requests_of_one_server_side_batch_do_not_touch_each_other(
    server: Any, model_store: Path, archive_folder: Path, jpeg: bytes, expected: dict[str, Any]
) -> None:
    """Four requests that TorchServe hands over as one batch, one of each kind, get four different answers."""
    config = (archive_folder / "model-config.yaml").read_text()
    config = config.replace("batchSize: 1", "batchSize: 4\nmaxBatchDelay: 20000")
    repack(model_store / "solar-cells.mar", model_store / "batched.mar", **{"model-config.yaml": config})
    assert register(server, url="batched.mar", model_name="batched").status_code == 200
    url, key = f"{server.inference}/predictions/batched", server.key("inference")
    bodies: list[dict[str, Any]] = [
        {"files": {"a": jpeg, "b": b"text"}, "headers": key},
        {"data": b"{", "headers": key | {"Content-Type": "application/json"}},
        {"data": jpeg[:2000], "headers": key | {"Content-Type": "image/jpeg"}},
        {"json": {"describe": True}, "headers": key},
    ]
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        many, malformed, bad, description = pool.map(
            lambda body: requests.post(url, timeout=60, **body), bodies
        )
    assert time.monotonic() - begun < 15, "the batch did not fill: it waited for its delay"
    good, text = entries(many)
    assert good == {"id": "a"} | expected
    assert text["error"]["reason"] == "not_an_image"
    assert malformed.status_code == 400
    assert entries(bad, 422)[0]["error"]["reason"] == "truncated"
    assert description.json()["model"]["name"] == "batched"


def test_the_torch_engine_serves_the_same_answers(
    server: Any, model_store: Path, archive_folder: Path, jpeg: bytes, expected: dict[str, Any]
) -> None:
    """One line of model-config.yaml changes the engine, and no label."""
    config = (archive_folder / "model-config.yaml").read_text().replace("engine: openvino", "engine: torch")
    repack(model_store / "solar-cells.mar", model_store / "torch.mar", **{"model-config.yaml": config})
    assert register(server, url="torch.mar", model_name="torch").status_code == 200
    url = f"{server.inference}/predictions/torch"
    response = requests.post(url, files={"a": jpeg}, headers=server.key("inference"), timeout=60)
    (answer,) = entries(response)
    assert answer["labels"] == expected["labels"]
    np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], atol=1e-5)
    described = requests.post(
        url, json={"describe": True}, headers=server.key("inference"), timeout=60
    ).json()
    assert described["engine"] == "torch"
    assert described["model"]["digest"] != server.predict(json={"describe": True}).json()["model"]["digest"]


def test_archives_from_elsewhere_are_refused(server: Any) -> None:
    """Only the model store may be registered from, also with the management key: archives run code."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.5)
        port = elsewhere.getsockname()[1]
        response = register(server, url=f"http://127.0.0.1:{port}/evil.mar", model_name="evil")
        assert response.status_code == 404
        assert "does not match any allowed URL" in response.json()["message"]
        with pytest.raises(TimeoutError):
            elsewhere.accept()


@pytest.mark.parametrize("url", ["../outside.mar", "file://{store}/../outside.mar", "file://{outside}"])
def test_archives_outside_the_model_store_are_refused(url: str, server: Any, model_store: Path) -> None:
    """A good archive beside the model store cannot be reached, by no spelling of its path."""
    outside = shutil.copy(model_store / "solar-cells.mar", model_store.parent / "outside.mar")
    response = register(server, url=url.format(store=model_store, outside=outside), model_name="outside")
    assert response.status_code in {400, 404}, response.text
    models = requests.get(f"{server.management}/models", headers=server.key("management"), timeout=30)
    assert "outside" not in models.text.replace("outside.mar", "")


def test_code_from_outside_the_archive_is_refused(archive_folder: Path, tmp_path: Path) -> None:
    """An installed copy of a module that shadows the archive's own would make the digest a lie."""
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    context = SimpleNamespace(system_properties={"model_dir": str(folder)})
    with pytest.raises(RuntimeError, match=r"was imported from .* and not from the archive"):
        ImageBatchHandler().initialize(context)
