"""The predictor over the wire: V1, V2 REST and V2 gRPC, asked by clients that know nothing of it."""

import base64
import http.client
import json
import os
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from imagebatch_archive import content_digest
from kserve.protocol.grpc.grpc_predict_v2_pb2 import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    RepositoryModelUnloadRequest,
)
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from PIL import Image

from tests.deploy.kserve.predictor.conftest import COMMAND, MODEL, MOST, Running, wait_until_ready
from tests.support.children import Child
from tests.support.handler_archives import LABELS, write_archive
from tests.support.images import encoded, jpeg
from tools.loopback import free_ports

BROKEN = b"\xff\xd8\xff no image"
FILES = [jpeg(1), jpeg(2, (64, 48)), BROKEN, jpeg(3)]
V1 = f"/v1/models/{MODEL}:predict"
V2 = f"/v2/models/{MODEL}/infer"


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def tensor(files: list[bytes], **more: Any) -> dict[str, Any]:
    return {
        "name": "image",
        "shape": [len(files)],
        "datatype": "BYTES",
        "data": [text(f) for f in files],
    } | more


@pytest.fixture
def scores(predictor: Running) -> list[list[float]]:
    """What V1 answers to `FILES`, an empty list for the broken one."""
    found = requests.post(predictor.url + V1, json={"instances": [text(file) for file in FILES]}, timeout=30)
    assert found.status_code == 200, found.text
    return [entry.get("probabilities", []) for entry in found.json()["predictions"]]


def test_v1_answers_each_image_and_an_error_for_the_broken_one(predictor: Running, tmp_path: Path) -> None:
    """Each usual form of an instance gives the same answer, the broken image its reason, and the reply names
    the archive that is served."""
    instances = [
        {"image": {"b64": text(FILES[0])}},
        {"b64": text(FILES[0])},
        text(FILES[0]),
        text(BROKEN),
        "!",
    ]
    found = requests.post(predictor.url + V1, json={"instances": instances}, timeout=30).json()
    one, two, three, broken, no_base64 = found["predictions"]
    assert one == two == three
    assert one["label"] == LABELS[int(np.argmax(one["probabilities"]))]
    assert abs(sum(one["probabilities"]) - 1) < 1e-6
    assert broken["error"]["reason"] == "decode_failed"
    assert no_base64["error"]["reason"] == "not_an_image"
    with zipfile.ZipFile(predictor.archive) as packed:
        packed.extractall(tmp_path)
    assert (found["digest"], found["version"]) == (content_digest(tmp_path), "1.0")
    assert found["labels"] == LABELS


def test_v2_gives_the_numbers_of_v1(predictor: Running, scores: list[list[float]]) -> None:
    """Over REST, with an id and without, in JSON and in binary outputs."""
    for request in ({"inputs": [tensor(FILES)]}, {"id": "7", "inputs": [tensor(FILES, shape=[4, 1])]}):
        found = requests.post(predictor.url + V2, json=request, timeout=30).json()
        probabilities, errors = found["outputs"]
        rows = np.array(probabilities["data"], np.float32).reshape(probabilities["shape"])
        for row, error, wanted in zip(rows, errors["data"], scores, strict=True):
            assert error.startswith("decode_failed: ") if not wanted else error == ""
            assert row.tolist() == (np.array(wanted, np.float32).tolist() if wanted else [0] * len(LABELS))
        assert found["id"] == request.get("id", found["id"])
        assert found["model_version"] == "1.0"
        assert found["parameters"]["digest"].startswith("sha256:")

    binary = {"inputs": [tensor(FILES[:1])], "parameters": {"binary_data_output": True}}
    answer = requests.post(predictor.url + V2, json=binary, timeout=30)
    size = int(answer.headers["Inference-Header-Content-Length"])
    numbers = np.frombuffer(answer.content[size : size + 4 * len(LABELS)], "<f4")
    assert numbers.tolist() == np.array(scores[0], np.float32).tolist()


def test_v2_takes_one_file_as_its_bytes(predictor: Running, scores: list[list[float]]) -> None:
    """A UINT8 tensor behind the JSON is a file as it is, without base64."""
    size = len(FILES[0])
    one = {"name": "image", "shape": [size], "datatype": "UINT8", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [one]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    found = requests.post(predictor.url + V2, data=head + FILES[0], headers=headers, timeout=30).json()
    assert found["outputs"][0]["data"] == np.array(scores[0], np.float32).tolist()


def test_grpc_gives_the_numbers_of_v1(predictor: Running, scores: list[list[float]]) -> None:
    """Files as `bytes_contents` and as raw contents need no base64; base64 is taken where it is said."""
    raw = b"".join(len(file).to_bytes(4, "little") + file for file in FILES)
    fields: dict[str, Any] = {"name": "image", "shape": [len(FILES)], "datatype": "BYTES"}
    as_text = {"content_type": {"string_param": "base64"}}
    inputs: list[dict[str, Any]] = [
        {"inputs": [fields | {"contents": {"bytes_contents": FILES}}]},
        {
            "inputs": [
                fields
                | {"contents": {"bytes_contents": [text(f).encode() for f in FILES]}, "parameters": as_text}
            ]
        },
        {"inputs": [fields], "raw_input_contents": [raw]},
    ]
    with grpc.insecure_channel(predictor.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(ModelReadyRequest(name=MODEL), timeout=30).ready
        assert stub.ModelMetadata(ModelMetadataRequest(name=MODEL), timeout=30).inputs[0].datatype == "BYTES"
        for given in inputs:
            found = stub.ModelInfer(ModelInferRequest(model_name=MODEL, **given), timeout=30)
            if found.raw_output_contents:
                numbers = np.frombuffer(found.raw_output_contents[0], "<f4")
            else:
                numbers = np.array(found.outputs[0].contents.fp32_contents, np.float32)
            for row, wanted in zip(numbers.reshape(len(FILES), -1), scores, strict=True):
                assert row.tolist() == np.array(wanted or [0] * len(LABELS), np.float32).tolist()
            assert found.parameters["digest"].string_param.startswith("sha256:")
        large = ModelInferRequest(
            model_name=MODEL,
            inputs=[fields | {"shape": [1], "contents": {"bytes_contents": [bytes(9 << 20)]}}],
        )
        found = stub.ModelInfer(large, timeout=60)  # more than KServe's own bound, 8 MiB
        assert found.outputs[1].contents.bytes_contents[0].startswith(b"not_an_image: ")
        with pytest.raises(grpc.RpcError) as refused:
            stub.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name=MODEL), timeout=30)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert stub.ModelReady(ModelReadyRequest(name=MODEL), timeout=30).ready


def test_metadata_tell_labels_and_digest(predictor: Running) -> None:
    """A client needs no model card: names, shapes, labels and digest stand in the V2 metadata."""
    found = requests.get(f"{predictor.url}/v2/models/{MODEL}", timeout=30).json()
    assert found["versions"] == ["1.0"]
    assert found["outputs"][0]["shape"] == [-1, len(LABELS)]
    assert found["outputs"][0]["parameters"]["labels"] == LABELS
    assert found["parameters"]["digest"].startswith("sha256:")
    assert requests.get(f"{predictor.url}/v2/models/other", timeout=30).status_code == 404


def test_a_path_may_name_the_version_that_is_served(predictor: Running, scores: list[list[float]]) -> None:
    """V1's and V2's paths with `/versions/1.0` are answered; another version is not taken for it."""
    metadata = f"{predictor.url}/v2/models/{MODEL}/versions/1.0"
    assert requests.get(metadata, timeout=30).json()["versions"] == ["1.0"]
    assert requests.get(f"{metadata}/ready", timeout=30).status_code == 200
    tensors = requests.post(f"{metadata}/infer", json={"inputs": [tensor(FILES[:1])]}, timeout=30).json()
    assert tensors["outputs"][0]["data"] == np.array(scores[0], np.float32).tolist()
    first = f"{predictor.url}/v1/models/{MODEL}/versions/1.0:predict"
    found = requests.post(first, json={"instances": [text(FILES[0])]}, timeout=30).json()
    assert found["predictions"][0]["probabilities"] == scores[0]
    assert requests.get(metadata.replace("1.0", "1.00"), timeout=30).status_code == 501
    assert requests.post(first.replace("1.0:", "1.00:"), json={}, timeout=30).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (V1, {"instances": []}, 400),
        (V1, {"instances": "text"}, 400),
        (V1, {"instances": [{"image": 3}]}, 400),
        (V1, {"instances": [""] * 1025}, 400),
        (V1, [], 400),
        (V1.replace(MODEL, "other"), {"instances": [""]}, 404),
        (V2, {"inputs": []}, 400),
        (V2, {"inputs": [tensor(FILES, shape=[3])]}, 400),
        (V2, {"inputs": [tensor(FILES, shape=[])]}, 400),
        (V2, {"inputs": [tensor([], shape=[0])]}, 400),
        (V2, {"inputs": [tensor(FILES, data=[1, 2, 3, 4])]}, 400),
        (V2, {"inputs": [tensor(FILES, datatype="FP32", data=[1, 2, 3, 4])]}, 400),
        (V2, {"inputs": [tensor(FILES, datatype="UINT8", shape=[2, 2], data=[1, 2, 3, 4])]}, 400),
        (V2, {"inputs": [tensor(FILES), tensor(FILES)]}, 400),
        ("/v2/repository/models/solar-cells/unload", {}, 400),
        ("/v2/repository/models/solar-cells/load", {}, 400),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(
    predictor: Running, path: str, body: Any, status: int
) -> None:
    """A malformed request is the client's fault, and the model stays as it was loaded."""
    answer = requests.post(predictor.url + path, json=body, timeout=30)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]
    good = requests.post(predictor.url + V1, json={"instances": [text(FILES[0])]}, timeout=30)
    assert "label" in good.json()["predictions"][0]


def test_a_body_beyond_the_bound_is_refused_with_413(predictor: Running) -> None:
    """By its length before it is read, and where it has none when it has grown too long."""
    announced = requests.post(predictor.url + V1, data=b" " * (MOST + 1), timeout=30)
    assert announced.status_code == 413
    host, _, port = predictor.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    chunks = (b" " * 65536 for _ in range(MOST // 65536 + 2))
    connection.request("POST", V1, body=chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().status == 413
    connection.close()
    assert requests.get(f"{predictor.url}/v2/models/{MODEL}/ready", timeout=30).status_code == 200


def test_many_at_once_get_their_own_answers(predictor: Running) -> None:
    """Each thread scores on a copy of its own: 24 requests at once are answered as one after the other."""
    files = [jpeg(seed, (80, 60)) for seed in range(24)]

    def ask(file: bytes) -> Any:
        found = requests.post(predictor.url + V1, json={"instances": [text(file)] * 8}, timeout=60)
        return found.json()["predictions"]

    alone = [ask(file) for file in files]
    with ThreadPoolExecutor(24) as threads:
        assert list(threads.map(ask, files)) == alone
    assert len({json.dumps(one) for one in alone}) == len(files)


def test_probes_are_answered_while_images_are_scored(predictor: Running) -> None:
    """Kubernetes must not restart a pod because it is at work: readiness comes before the scores do."""
    large = {"instances": [text(jpeg(1, (400, 300)))] * 3}
    with ThreadPoolExecutor(8) as threads:
        at_work = [
            threads.submit(requests.post, predictor.url + V1, json=large, timeout=60) for _ in range(16)
        ]
        answered = 0
        while not all(one.done() for one in at_work):
            ready = requests.get(f"{predictor.url}/v2/models/{MODEL}/ready", timeout=5)
            answered += ready.status_code == 200
        assert all(one.result().status_code == 200 for one in at_work)
    assert answered > 0


def started(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a predictor that is expected to end by itself."""
    argv = [COMMAND, f"--model_name={MODEL}", *flags]
    variables = {**os.environ, **environment}
    return subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.timeout(400)  # four servers, one after the other, on busy machines, too
def test_what_cannot_be_served_ends_with_78_and_one_line(storage: Path, tmp_path: Path) -> None:
    """An empty storage, a file that is no archive, and another archive than the one that is asked for."""
    (tmp_path / "half.mar").write_bytes(b"PK\x03\x04")
    empty = tmp_path / "empty"
    empty.mkdir()
    for flags, said in (
        ([f"--model_dir={empty}"], "is the storage mounted there?"),
        ([f"--model_dir={tmp_path / 'half.mar'}"], "is no model archive"),
        ([f"--model_dir={storage}", f"--digest=sha256:{'0' * 64}"], "is asked for"),
    ):
        ended = started(*flags)
        assert ended.returncode == 78, ended.stderr
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr


def test_zero_threads_are_wrong_usage(storage: Path) -> None:
    """A number that cannot be ends with code 2 and its reason."""
    ended = started(f"--model_dir={storage}", "--scoring_threads=0")
    assert (ended.returncode, "must be at least 1" in ended.stderr) == (2, True)


HEADS: dict[str, dict[str, Any]] = {
    "multilabel": {"head": "multilabel", "thresholds": {LABELS[0]: 0.7}},
    "regression": {"head": "regression", "quantity": {"name": "mean red", "lowest": 0, "highest": 127}},
}


@pytest.mark.parametrize("kind", HEADS)
def test_other_heads_give_their_own_numbers(kind: str, tmp_path: Path) -> None:
    """A probability for each class by itself, or one score, and one that cannot be is an error."""
    archive = write_archive(tmp_path, **HEADS[kind])
    bright, dark = (
        encoded(Image.new("RGB", (32, 32), (200, 0, 0))),
        encoded(Image.new("RGB", (32, 32), (50, 0, 0))),
    )
    rest, rpc = free_ports(2)
    flags = [f"--model_name={MODEL}", f"--model_dir={archive}", f"--http_port={rest}", f"--grpc_port={rpc}"]
    child = Child(
        [COMMAND, *flags],
        environment={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        log=tmp_path / "server.log",
    )
    url = f"http://127.0.0.1:{rest}"
    try:
        wait_until_ready(child, url)
        body = {"instances": [text(dark), text(bright)]}
        v1 = requests.post(url + V1, json=body, timeout=30).json()["predictions"]
        v2 = requests.post(url + V2, json={"inputs": [tensor([dark, bright])]}, timeout=30).json()
    finally:
        child.kill()
    outputs = {output["name"]: output for output in v2["outputs"]}
    if kind == "regression":
        assert v1[0] == {"score": 50.0}
        assert (v1[1]["error"]["reason"], outputs["score"]["shape"]) == ("out_of_range", [2, 1])
        assert outputs["score"]["data"][0] == 50.0
        assert [one.partition(":")[0] for one in outputs["error"]["data"]] == ["", "out_of_range"]
    else:
        expected = 1 / (1 + np.exp(-200 * np.array([0.03, -0.02, 0.01, 0.002])))
        assert v1[1] == {"probabilities": pytest.approx(expected, abs=1e-6)}
        assert outputs["probabilities"]["data"][4:] == pytest.approx(v1[1]["probabilities"], abs=1e-7)
