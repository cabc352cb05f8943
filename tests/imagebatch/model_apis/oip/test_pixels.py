"""Models that take tensors: what is sent, in how many requests, and what a card must say before any is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagebatch_pixels
import pytest
from imagebatch.errors import ConfigurationError
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload, ModelApi
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.pixels.pool import PixelMaker, maker_for
from imagebatch.settings import ApiSettings

from tests.support.grpc_server import GrpcServer
from tests.support.images import jpeg
from tests.support.model_server import DIGEST, LABELS, Wrong
from tests.support.protocol_server import Habits, ProtocolServer

PIXELS: dict[str, Any] = {"version": "1", "resize": 36, "crop": 32}
IMAGES = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(7)]
BROKEN = ImagePayload("broken", b"\xff\xd8\xff no image")
TAKES = Habits(raw=True, datatype="UINT8", shape=(-1, 3, 32, 32))


@pytest.fixture(scope="module", autouse=True)
def kept() -> PixelMaker:
    """Holds what makes most tests' pixels: each would load torch anew."""
    return maker_for(Pixels.model_validate(PIXELS), "UINT8", "NCHW", ApiSettings(local_workers=1))


def client(server: ProtocolServer, folder: Path, pixels: Any = PIXELS, **more: Any) -> ModelApi:
    card = folder / "card.json"
    card.write_text(json.dumps({"labels": LABELS} | ({"pixels": pixels} if pixels else {}) | more))
    settings = ApiSettings(api_url=server.url, model_card=str(card), local_workers=1)
    return open_backend("oip", settings, "solar-cells", "")


def test_an_image_that_cannot_be_read_is_its_own_row(tmp_path: Path) -> None:
    """It is refused here, with the handler's words, and not sent; the others' answers stay with them."""
    with ProtocolServer(TAKES) as server:
        api = client(server, tmp_path)
        alone = [api.predict([image], 2).answers[0] for image in IMAGES[:2]]
        server.tensors.clear()
        answers = api.predict([BROKEN, IMAGES[0], BROKEN, IMAGES[1]], 2).answers
        assert [answers[1], answers[3]] == alone
        with pytest.raises(imagebatch_pixels.ImageError) as caught:
            imagebatch_pixels.decode(BROKEN.data)
        told = (caught.value.reason, caught.value.detail)
        assert [(answers[at].reason, answers[at].detail) for at in (0, 2)] == [told] * 2
        assert [shape for shape, _ in server.tensors] == [[2, 3, 32, 32]]
        assert api.predict([BROKEN], 2).answers[0].reason
        assert len(server.tensors) == 1


def test_over_grpc_pixels_are_raw_whatever_is_said_of_files(tmp_path: Path) -> None:
    """--payload base64 is for files: a tensor without its numbers was sent."""
    (tmp_path / "card.json").write_text(json.dumps({"labels": LABELS, "pixels": PIXELS}))
    with GrpcServer(Habits(raw=True, grpc=True, datatype="UINT8", shape=(-1, 3, 32, 32))) as server:
        answers = []
        for payload in ("raw", "base64"):
            settings = ApiSettings(
                api_url=server.url, model_card=str(tmp_path / "card.json"), local_workers=1, payload=payload
            )
            api = open_backend("oip", settings, "solar-cells", "")
            answers.append(api.predict(IMAGES, 2).answers)
            api.close()
    assert answers[0] == answers[1]


def test_what_is_sent_is_what_the_handler_would_see(tmp_path: Path) -> None:
    """To the bit, in the order of the images."""
    with ProtocolServer(TAKES) as server:
        api = client(server, tmp_path)
        api.describe()
        server.tensors.clear()
        api.predict(IMAGES, 2)
        ((_, sent),) = [one for one in server.tensors if one[0][0] == len(IMAGES)]
    seen = [imagebatch_pixels.decode(image.data, resize=36, crop=32).numpy().tobytes() for image in IMAGES]
    assert sent == b"".join(seen)


@pytest.mark.parametrize(
    ("habits", "shapes"),
    [
        (Habits(raw=True, datatype="UINT8", shape=(-1, 3, 32, 32), most=3), [2, 2, 3]),
        (Habits(raw=True, datatype="UINT8", shape=(1, 3, 32, 32)), [1] * 7),
        (Habits(raw=True, datatype="UINT8", shape=(3, 32, 32)), [3] * 7),  # no dimension for images
        (Habits(raw=True, datatype="UINT8", shape=(-1, 3, -1, -1)), [7]),
    ],
    ids=["max_batch_size", "batches of one", "no batches", "any size"],
)
def test_no_request_has_more_images_than_the_server_takes(
    habits: Habits, shapes: list[int], tmp_path: Path
) -> None:
    """Its metadata tell; a pack becomes as many requests, of about the same size."""
    with ProtocolServer(habits) as server:
        api = client(server, tmp_path)
        api.describe()
        server.tensors.clear()
        server.packs.clear()
        answers = api.predict(IMAGES, 2).answers
        sent = [shape[0] for shape, _ in server.tensors]
        assert (sent[-len(shapes) :], len(answers)) == (shapes, 7)
        assert list(answers) == [api.predict([image], 2).answers[0] for image in IMAGES]


def test_no_request_is_larger_than_four_mebibytes(tmp_path: Path) -> None:
    """However many images the scorer packs: memory stays flat, and gRPC's usual limit holds."""
    large = PIXELS | {"resize": 500, "crop": 500}
    with ProtocolServer(Habits(raw=True, datatype="UINT8", shape=(-1, 500, 500, 3))) as server:
        api = client(server, tmp_path, large)
        assert len(api.predict(IMAGES * 2, 2).answers) == 14
        sent = [len(data) for _, data in server.tensors]
        api.close()
    assert max(sent) < 4 * 2**20
    assert sum(size > 750_000 for size in sent) >= 3


@pytest.mark.parametrize(
    ("habits", "pixels", "message"),
    [
        (TAKES, None, r'takes UINT8 \[-1, 3, 32, 32\], pixels and not files: say in --model-card, "pixels"'),
        (TAKES, {"crop": 32}, r"--model-card .*card.json: pixels\.version: Field required"),
        (TAKES, PIXELS | {"version": "0"}, "takes pixels of version 0"),
        (TAKES, PIXELS | {"crop": 31}, r"\[-1, 3, 32, 32\], which does not fit .* 31 x 31"),
        (TAKES, PIXELS | {"layout": "NHWC"}, "does not fit the pixels of --model-card, 32 x 32 NHWC"),
        (TAKES, PIXELS | {"datatype": "FP32"}, r"takes UINT8 \[.*\] and not the FP32 of --model-card"),
        (Habits(raw=True, datatype="FP32", shape=(-1, 3, 32, 32)), PIXELS, 'give "mean" and "std"'),
        (Habits(raw=True, datatype="FP16", shape=(-1, 3, 32, 32)), PIXELS, "takes FP16 .*: files"),
        (Habits(raw=True, datatype="UINT8", shape=(8, 3, 32, 32)), PIXELS, "neither images"),
        (Habits(raw=True, datatype="UINT8", shape=(-1, 1, 32, 32)), PIXELS, "does not fit"),
        (Habits(raw=True, datatype="UINT8", shape=(-1, -1, -1, -1)), PIXELS, "say NCHW or NHWC"),
        (Habits(raw=True), PIXELS | {"datatype": "UINT8"}, "takes BYTES .* and not the UINT8"),
        (
            Habits(raw=False, describes=False),
            PIXELS | {"datatype": "UINT8"},
            'the server does not say its shape: give "layout"',
        ),
    ],
)
def test_nothing_is_guessed(habits: Habits, pixels: Any, message: str, tmp_path: Path) -> None:
    """What is missing or contradicts the server is code 78 before an image is asked about."""
    with ProtocolServer(habits) as server:
        with pytest.raises(ConfigurationError, match=message):
            client(server, tmp_path, pixels).describe()
        assert not server.packs


def test_a_model_is_pinned_with_its_pixels(tmp_path: Path) -> None:
    """The server's word for a model says nothing of its pixels: another crop is another digest."""
    with ProtocolServer(TAKES) as server:
        one = client(server, tmp_path).describe()
        other = client(server, tmp_path, PIXELS | {"resize": 40, "background": "black"}).describe()
        told = client(server, tmp_path).predict(IMAGES, 2).digest
    assert len({one.digest, other.digest, DIGEST}) == 3
    assert told == one.digest
    assert (one.view, other.view) == ({}, {"background": "black"})


@pytest.mark.parametrize("beside", [False, True], ids=["of the handler", "beside the archive"])
def test_an_archives_description_is_a_whole_card(beside: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a column of the table
    """Labels, head, pixels and a digest that covers them: the run has the archive's own."""
    digest = "sha256:" + "12" * 32
    named = {"name": "solar-cells", "version": "1.0", "digest": digest}
    described: dict[str, Any] = {
        **(named if beside else {"model": named}),
        "labels": LABELS,
        "head": "multilabel",
        "thresholds": [0.5, *[0.25] * (len(LABELS) - 1)],
        "input": {"resize": 36, "crop": 32, "channels": 3, "pixels": "1", "page": 2},
        "engine": "openvino",
        "parity": None,
    }
    habits = Habits(raw=True, datatype="UINT8", shape=(-1, 3, 32, 32), describes=False)
    with ProtocolServer(habits) as server:
        card = tmp_path / "described.json"
        card.write_text(json.dumps(described))
        settings = ApiSettings(api_url=server.url, model_card=str(card), local_workers=1)
        pin = open_backend("oip", settings, "solar-cells", "").describe()
    assert (pin.digest, pin.view) == (digest, {"page": 2})
    assert (pin.head, pin.thresholds) == ("multilabel", described["thresholds"])


def test_pixels_are_text_where_the_server_takes_no_bytes(tmp_path: Path) -> None:
    """As MLServer: the first image finds out, and the tensor is the same."""
    sent = []
    for raw in (True, False):
        habits = Habits(raw=raw, datatype="UINT8", shape=(-1, 3, 32, 32))
        with ProtocolServer(habits) as server:
            client(server, tmp_path).predict(IMAGES, 2)
            sent.append([one for one in server.tensors if one[0][0] == len(IMAGES)])
    assert sent[0] == sent[1]


def test_a_fault_of_the_server_is_one_of_the_request(tmp_path: Path) -> None:
    """Pixels that were made are asked about again, as files are."""
    with ProtocolServer(TAKES) as server:
        api = client(server, tmp_path)
        api.predict(IMAGES, 2)
        server.faults = lambda _images: Wrong(503)
        with pytest.raises(ApiFaultError) as caught:
            api.predict(IMAGES, 2)
        server.faults = lambda _images: None
        assert len(api.predict(IMAGES, 2).answers) == len(IMAGES)
    assert caught.value.fault is Fault.OVERLOADED
