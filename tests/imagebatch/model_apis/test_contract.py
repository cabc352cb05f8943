"""The contract of every model API: what the scorer relies on, whatever server answers."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from imagebatch.errors import ConfigurationError, UnknownModelError
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ImagePayload, ModelApi
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.pixels.pool import PixelMaker, maker_for
from imagebatch.model_apis.retry import Patience
from imagebatch.observe.metrics import Telemetry
from imagebatch.scorer.pace import Pace
from imagebatch.scorer.packs import PackScorer
from imagebatch.settings import ApiSettings

from tests.support.grpc_server import GrpcServer
from tests.support.handler_archives import LABELS
from tests.support.images import jpeg
from tests.support.model_server import ModelServer
from tests.support.protocol_server import Habits, ProtocolServer

GOOD = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(5)]
SERVERS = {
    "oip, raw bytes, as Triton": Habits(raw=True),
    "oip, base64, as MLServer": Habits(raw=False, tells=False),
    "oip, base64, as KServe": Habits(raw=False, tells=False, describes=False),
    "oip, raw pixels, as Triton": Habits(raw=True, datatype="UINT8", shape=(-1, 3, 32, 32), most=3),
    "oip, pixels in JSON, as MLServer": Habits(raw=False, datatype="FP32", shape=(-1, 32, 32, 3)),
    "oip, pixels not described, as KServe": Habits(raw=False, tells=False, describes=False, datatype="UINT8"),
    "oip, gRPC, files, as Triton": Habits(raw=True, grpc=True),
    "oip, gRPC, base64, as MLServer": Habits(raw=False, tells=False, grpc=True),
    "oip, gRPC, pixels, as Triton": Habits(
        raw=True, grpc=True, datatype="FP32", shape=(-1, 32, 32, 3), most=3
    ),
    "kserve_v1": Habits("kserve_v1", raw=False, describes=False),
    "kserve_v1, errors not told": Habits("kserve_v1", raw=False, tells=False, describes=False),
    "mlflow": Habits("mlflow", raw=False, describes=False),
    "http": Habits("http", raw=False, describes=False),
    "http, one image a request": Habits("http", raw=False, describes=False, most=1),
}
PIXELS = {
    "version": "1",
    "resize": 36,
    "crop": 32,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}

MANY = """
request: {path: /of/$model/classify, body: {pictures: $images}, image: {content: $base64}}
reply: {images: "$.results[*]", probabilities: $.scores, labels: "$.names[*]", reason: $.error}
ready: /ping
"""
ONE = """
request: {path: /of/$model/classify, body: $file}
reply: {images: $, probabilities: "$.scores[*]", labels: $.names, reason: $.error}
"""


@dataclasses.dataclass
class Opened:
    """A model API, and how it was opened."""

    api: ModelApi
    kind: str
    url: str = "http://127.0.0.1:1"
    card: str = ""
    template: str = ""


def declared(habits: Habits) -> dict[str, Any]:
    """What the card says of the pixels that a server takes."""
    unsaid = {} if habits.describes else {"datatype": habits.datatype, "layout": "NHWC"}
    return PIXELS | unsaid


@pytest.fixture(scope="session")
def makers() -> list[PixelMaker]:
    """Holds what makes the pixels: each test would load torch anew."""
    settings = ApiSettings(local_workers=1)
    return [
        maker_for(
            Pixels.model_validate(declared(habits)),
            "UINT8" if habits.datatype == "UINT8" else "FP32",
            "NCHW" if habits.shape[1] == 3 else "NHWC",
            settings,
        )
        for habits in SERVERS.values()
        if habits.datatype != "BYTES"
    ]


@pytest.fixture(params=["local", "torchserve", *SERVERS])
def opened(request: pytest.FixtureRequest, server: ModelServer, tmp_path: Path) -> Iterator[Opened]:
    """Each kind of model API: what holds for one must hold for all."""
    if request.param == "local":
        yield Opened(request.getfixturevalue("model"), "local")
    elif request.param == "torchserve":
        settings = ApiSettings(api_url=server.url)
        yield Opened(open_backend("torchserve", settings, "solar-cells", ""), "torchserve", server.url)
    else:
        habits = SERVERS[request.param]
        card = tmp_path / "card.json"
        known: dict[str, Any] = {"labels": LABELS, "input": "image" * (habits.protocol == "kserve_v1")}
        pixels = habits.datatype != "BYTES"
        if pixels:
            request.getfixturevalue("makers")
            known["pixels"] = declared(habits)
        card.write_text(json.dumps(known))
        with GrpcServer(habits) if habits.grpc else ProtocolServer(habits) as running:
            template = tmp_path / "template.yaml"
            template.write_text(ONE if habits.most else MANY)
            settings = ApiSettings(
                api_url=running.url,
                model_card="" if habits.describes and not pixels else str(card),
                request_template=str(template),
                local_workers=1,
            )
            version = "" if habits.raw or habits.protocol != "mlflow" else "1.0"
            api = open_backend(habits.protocol, settings, "solar-cells", version)
            yield Opened(api, habits.protocol, running.url, str(card), str(template))
            api.close()


@pytest.fixture
def api(opened: Opened) -> ModelApi:
    return opened.api


def test_every_api_describes_its_model(api: ModelApi) -> None:
    """The pin names model, version, digest and labels, the same at every call."""
    pin = api.describe()
    assert (pin.name, pin.labels) == ("solar-cells", LABELS)
    assert pin.version in {"1.0", ""}  # KServe's servers know none
    assert pin.digest.startswith("sha256:")
    assert len(pin.digest) == len("sha256:") + 64
    assert api.describe() == pin


def test_every_api_answers_each_image_in_order(api: ModelApi) -> None:
    """A pack's answers are those of its images asked alone, k labels each, under the pin's digest."""
    reply = api.predict(GOOD, 3)
    assert reply.digest == api.describe().digest
    assert [len(answer.labels) for answer in reply.answers] == [3] * len(GOOD)
    alone = [api.predict([image], 3).answers[0] for image in GOOD]
    assert list(reply.answers) == alone
    assert len(set(reply.answers)) > 1


def test_every_api_answers_several_threads(api: ModelApi) -> None:
    """More threads than workers get each their own answers."""
    packs = [[image] for image in GOOD] * 4
    with ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda pack: api.predict(pack, 2), packs))
    assert replies == [api.predict(pack, 2) for pack in packs]


def test_every_api_answers_as_often_as_what_it_prepared_is_called(api: ModelApi) -> None:
    """A prepared request gives the answers of `predict`, at its first call and at its second."""
    again = api.prepared(GOOD, 2)
    assert [again(), again()] == [api.predict(GOOD, 2)] * 2


def test_every_api_tells_a_bad_image_from_a_bad_request(api: ModelApi) -> None:
    """One bad image costs its own row alone, whether the server names it or fails the whole request."""
    images = [GOOD[0], ImagePayload("bad", b"\xff\xd8\xff BROKEN"), GOOD[1]]
    telemetry = Telemetry()
    packs = PackScorer(
        api,
        model=api.describe(),
        top_k=2,
        pace=Pace(1, 128, 60),
        patience=Patience(api.ready, 10, telemetry),
        telemetry=telemetry,
    )
    answers = list(itertools.chain.from_iterable(packs.score(images)))
    assert [bool(answer.reason) for answer in answers] == [False, True, False]
    assert answers[1].labels == ()
    assert [answers[0], answers[2]] == list(api.predict(GOOD[:2], 2).answers)


def test_every_api_embeds_the_images_asked(api: ModelApi, server: ModelServer) -> None:
    """An API that describes embeddings gives them to those asked; one that does not, ignores the wish."""
    server.embedding = 5
    length = api.describe().embedding
    plain = api.predict(GOOD, 3).answers
    asked = [dataclasses.replace(image, embed=at in {1, 4}) for at, image in enumerate(GOOD)]
    answers = api.predict(asked, 3).answers
    assert [len(answer.embedding) for answer in answers] == [0, 4 * length, 0, 0, 4 * length]
    assert tuple(dataclasses.replace(answer, embedding=b"") for answer in answers) == plain
    if length:
        assert answers[1].embedding != answers[4].embedding
        bad = ImagePayload("bad", b"\xff\xd8\xff BROKEN", embed=True)
        assert not api.predict([bad], 3).answers[0].embedding


def test_every_api_tells_an_unknown_model(opened: Opened, archive: Path) -> None:
    """A name that the server does not serve is a configuration error at once, with the name in it."""
    settings = ApiSettings(
        api_url=opened.url,
        model_archive=str(archive),
        local_workers=1,
        model_card=opened.card if opened.kind == "http" else "",
        request_template=opened.template,
    )
    other = open_backend(opened.kind, settings, "nothing", "")
    try:
        if opened.kind == "mlflow":  # its server has one model, and asks for no name
            with pytest.raises(ConfigurationError, match="does not name the classes of nothing"):
                other.describe()
        else:
            with pytest.raises(UnknownModelError, match="nothing"):
                other.describe()
    finally:
        other.close()


def test_every_api_says_when_it_is_ready(api: ModelApi) -> None:
    """`ready` asks for a real prediction and returns."""
    api.ready()
