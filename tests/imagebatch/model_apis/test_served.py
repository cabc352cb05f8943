"""Servers of other makers: what each answer means, what a run is pinned to, and what must not be believed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ConfigurationError, ModelChangedError
from imagebatch.heads.softmax import Softmax
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.card import read_card
from imagebatch.model_apis.oip.tensors import JSON_LENGTH, read_inference
from imagebatch.model_apis.pinning import pictures
from imagebatch.model_apis.scores import checked, row_of
from imagebatch.model_apis.served import ServedModel
from imagebatch.settings import ApiSettings

from tests.support.calls import Call, scored
from tests.support.images import jpeg
from tests.support.model_server import LABELS, ModelServer, Wrong
from tests.support.protocol_server import Habits, ProtocolServer, probabilities
from tools.paths import UV

PACK = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(3)]
TRITON = Habits(raw=True)
KSERVE = Habits(raw=False, tells=False, describes=False)
V1 = Habits("kserve_v1", raw=False, describes=False)
MLFLOW = Habits("mlflow", raw=False, describes=False)


def softmax(labels: list[str], top_k: int) -> Softmax:
    return Softmax(ModelPin(name="m", version="", digest="", labels=labels), top_k)


def client(
    server: ProtocolServer, folder: Path, version: str = "", *, patience: float = 30, **card: Any
) -> ServedModel:
    """A client of the server; `patience`: seconds for a request; `card`: more of its model card."""
    habits = server.habits
    known = {"labels": LABELS} if not habits.describes else {}
    named = {"input": "image"} if habits.protocol == "kserve_v1" else {}
    path = folder / "card.json"
    path.write_text(json.dumps(known | named | card))
    settings = ApiSettings(api_url=server.url, model_card=str(path), request_timeout=patience)
    api = open_backend(habits.protocol, settings, "solar-cells", version)
    assert isinstance(api, ServedModel)
    return api


@pytest.mark.parametrize("habits", [TRITON, KSERVE, V1, MLFLOW], ids=["triton", "kserve", "v1", "mlflow"])
@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (Wrong(503), Fault.OVERLOADED),
        (Wrong(429), Fault.OVERLOADED),
        (Wrong(404, b"loading"), Fault.OVERLOADED),
        (Wrong(500, b"Internal Server Error"), Fault.WORKER_DIED),
        (Wrong(500, b'{"predictions": [[1, 0, 0, 0]]}'), Fault.WORKER_DIED),
        (Wrong(502), Fault.UNREACHABLE),
        (Wrong(504), Fault.TIMED_OUT),
        (Wrong(413), Fault.TOO_LARGE),
        (Wrong(400, b"bad request"), Fault.BAD_REPLY),
        (Wrong(422, b"{}"), Fault.BAD_REPLY),
        (Wrong(200, b"<html>proxy error</html>"), Fault.BAD_REPLY),
        (Wrong(200, b"[" * 100_000), Fault.BAD_REPLY),
        (Wrong(200, b""), Fault.BAD_REPLY),
        (Wrong(200, b'{"predictions": [NaN], "outputs": [NaN]}'), Fault.BAD_REPLY),
        (Wrong(200, b"x" * 100, half=True), Fault.UNREACHABLE),
        (Wrong(hang_up=True), Fault.UNREACHABLE),
        (Wrong(pause=4), Fault.TIMED_OUT),
    ],
)
def test_each_failure_has_its_fault(habits: Habits, wrong: Wrong, fault: Fault, tmp_path: Path) -> None:
    """What the scorer does next hangs on telling these apart; a 500 is never read, whatever it holds."""
    with ProtocolServer(habits) as server:
        api = client(server, tmp_path, patience=2 if wrong.pause else 30)
        api.predict(PACK, 4)
        server.faults = lambda _images: wrong
        with pytest.raises(ApiFaultError) as caught:
            api.predict(PACK, 4)
    assert caught.value.fault is fault


@pytest.mark.parametrize("status", [401, 403])
def test_a_client_that_is_refused_is_told_so(status: int, tmp_path: Path) -> None:
    """Credentials must never look like bad images; the server's own words are in the line."""
    with ProtocolServer(TRITON) as server:
        api = client(server, tmp_path)
        api.predict(PACK, 4)
        server.faults = lambda _images: Wrong(status, b"Invalid Host header")
        with pytest.raises(ConfigurationError, match=r"refuses this client: HTTP 40\d Invalid Host"):
            api.predict(PACK, 4)


@pytest.mark.parametrize("habits", [TRITON, KSERVE, V1, MLFLOW], ids=["triton", "kserve", "v1", "mlflow"])
def test_ready_is_a_route_and_an_answer(habits: Habits, tmp_path: Path) -> None:
    """A server is ready when the model's own route says so and an image is answered: either may lie."""
    with ProtocolServer(habits) as server:
        api = client(server, tmp_path)
        api.predict(PACK, 4)
        api.ready()
        server.ready = False
        with pytest.raises(ApiFaultError, match="overloaded"):
            api.ready()
        server.ready = True
        server.faults = lambda _images: Wrong(500, b"Stub process is not healthy.")
        with pytest.raises(ApiFaultError, match="not healthy"):
            api.ready()


def infers(server: ProtocolServer) -> int:
    return sum(path.endswith("/infer") for path in server.asked)


def test_the_form_of_an_image_is_found_once(tmp_path: Path) -> None:
    """Raw bytes where the server takes them, else base64: one image tells, and no later request pays."""
    for habits, probes in ((TRITON, 1), (Habits(raw=False), 2)):
        with ProtocolServer(habits) as server:
            api = client(server, tmp_path)
            api.predict(PACK, 4)
            assert infers(server) == probes + 1
            api.predict(PACK, 4)
            assert infers(server) == probes + 2


def test_the_form_can_be_said() -> None:
    """With --payload nothing is tried: a server that takes the other form is a fault with its own words."""
    with ProtocolServer(TRITON) as server:
        for form in ("raw", "base64"):
            settings = ApiSettings(api_url=server.url, payload=form)
            api = open_backend("oip", settings, "solar-cells", "")
            if form == "raw":
                assert len(api.predict(PACK, 4).answers) == 3
                assert infers(server) == 1
            else:
                with pytest.raises(ApiFaultError, match="the model cannot read text"):
                    api.predict(PACK, 4)


def test_a_model_that_answers_in_neither_form_is_told(tmp_path: Path) -> None:
    """The line has what came of each."""
    with ProtocolServer(TRITON) as server:
        api = client(server, tmp_path)
        server.faults = lambda _images: Wrong(500, b"out of order")
        with pytest.raises(
            ApiFaultError, match=r"neither form of --payload: raw: .*out of order; base64: .*text"
        ):
            api.predict(PACK, 4)


def test_more_images_than_a_model_takes_are_halved(tmp_path: Path) -> None:
    """Triton's refusal of a batch is about its size and not about an image."""
    with ProtocolServer(Habits(raw=True, most=2)) as server:
        api = client(server, tmp_path)
        with pytest.raises(ApiFaultError, match="too_large"):
            api.predict(PACK, 4)
        assert len(api.predict(PACK[:2], 4).answers) == 2


def _fewer(reply: dict[str, Any]) -> None:
    reply["outputs"][0]["shape"][0] -= 1


def _more_behind(reply: dict[str, Any]) -> None:
    reply["outputs"][0]["parameters"]["binary_data_size"] += 4


def _negative(reply: dict[str, Any]) -> None:
    reply["outputs"][0]["parameters"]["binary_data_size"] = -4


def _another_request(reply: dict[str, Any]) -> None:
    reply["id"] = "another"


def _another_version(reply: dict[str, Any]) -> None:
    reply["model_version"] = "2"


def _integers(reply: dict[str, Any]) -> None:
    reply["outputs"][0]["datatype"] = "INT32"


def _two_of_numbers(reply: dict[str, Any]) -> None:
    reply["outputs"] += [
        {"name": name, "datatype": "FP32", "shape": [1, 1], "data": [0.5]} for name in ("a", "b")
    ]
    reply["outputs"][0]["name"] = "c"


def _nothing(reply: dict[str, Any]) -> None:
    reply["outputs"] = []


@pytest.mark.parametrize(
    "tampering",
    [
        _fewer,
        _more_behind,
        _negative,
        _another_request,
        _another_version,
        _integers,
        _two_of_numbers,
        _nothing,
    ],
)
def test_a_reply_that_cannot_be_is_refused(
    tampering: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    """Tensors that are not this version's answer to this request and these images are never taken."""

    def tamper(reply: dict[str, Any]) -> dict[str, Any]:
        tampering(reply)
        return reply

    with ProtocolServer(TRITON) as server:
        api = client(server, tmp_path)
        api.predict(PACK, 4)
        server.tamper = tamper
        with pytest.raises(ApiFaultError) as caught:
            api.predict(PACK, 4)
    assert caught.value.fault is Fault.BAD_REPLY


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=6), st.integers(0, 300).map(str)))
def test_no_bytes_are_more_than_a_bad_reply(body: bytes, length: str | None) -> None:
    """Whatever a server sends, it is an inference or a fault."""
    headers = {} if length is None else {JSON_LENGTH: length}
    with contextlib.suppress(ApiFaultError):
        read_inference(headers, body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "outputs",
                    "name",
                    "datatype",
                    "shape",
                    "data",
                    "parameters",
                    "binary_data_size",
                    "error",
                    "labels",
                    "probabilities",
                    "reason",
                    "FP32",
                    "id",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON, st.sampled_from(["FP32", "FP16", "BYTES", "INT8"]), _JSON)
def test_no_json_is_more_than_a_bad_reply(data: Any, datatype: str, shape: Any) -> None:
    """Values of any type in the place of another are a fault, in a tensor as in a row of V1."""
    output = {"name": "p", "datatype": datatype, "shape": shape, "data": data}
    for reply in (data, {"outputs": data}, {"outputs": [output]}):
        with contextlib.suppress(ApiFaultError):
            read_inference({}, json.dumps(reply).encode())
    with contextlib.suppress(ApiFaultError):
        answer = checked(row_of(data), softmax(LABELS, 2), logits=False)
        assert answer.reason or len(answer.labels) == len(answer.probabilities) == 2


def test_classes_of_one_name_are_told_apart() -> None:
    """Where a name does not tell its class, the answer has the class's index, too; ties go by index."""
    row = row_of([0.25, 0.5, 0.25])
    twins = checked(row, softmax(["a", "b", "a"], 3), logits=False)
    assert (twins.labels, twins.classes) == (("b", "a", "a"), (1, 0, 2))
    assert checked(row, softmax(["a", "b", "c"], 3), logits=False).classes == ()


def test_logits_are_never_taken_for_probabilities(tmp_path: Path) -> None:
    """They are refused with what to write into the model card; then their softmax is the answer."""
    with ProtocolServer(KSERVE) as server:
        expected = client(server, tmp_path).predict(PACK, 4).answers
        server.answers = lambda data: [3 + float(np.log(value)) for value in probabilities(data)]
        with pytest.raises(ConfigurationError, match='"scores": "logits"'):
            client(server, tmp_path).describe()
        answers = client(server, tmp_path, scores="logits").predict(PACK, 4).answers
    assert [answer.labels for answer in answers] == [answer.labels for answer in expected]
    for one, other in zip(answers, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


@pytest.mark.parametrize("habits", [KSERVE, V1, MLFLOW], ids=["kserve", "v1", "mlflow"])
def test_a_model_without_a_digest_is_known_by_its_answers(habits: Habits, tmp_path: Path) -> None:
    """The same model has the same digest from every client; another under the same name has another."""
    with ProtocolServer(habits) as server:
        pins = {client(server, tmp_path).describe().digest for _ in range(2)}
        assert len(pins) == 1
        server.answers = lambda data: [value + 1e-7 for value in probabilities(data)]
        noisy = client(server, tmp_path).describe().digest
        server.answers = lambda data: probabilities(data)[::-1]
        other = client(server, tmp_path).describe().digest
    assert noisy in pins
    assert other not in pins


def test_another_reading_of_the_same_model_is_another_pin(tmp_path: Path) -> None:
    """A run that began with probabilities is not continued with logits, nor answered from their cache: the
    server's digest is of the model alone, and its answers mean what the card says.
    """
    with ProtocolServer(TRITON) as server:
        usual = client(server, tmp_path)
        logits = client(server, tmp_path, scores="logits")
        named = client(server, tmp_path, output="probabilities")
        digests = [api.describe().digest for api in (usual, logits, named)]
        replied = [api.predict(PACK, 4).digest for api in (usual, logits, named)]
    assert len(set(digests)) == 3
    assert replied == digests


def test_a_v1_reply_tells_what_v1_metadata_cannot(tmp_path: Path) -> None:
    """Labels, digest and version of our predictor's replies need no card; they hold for every row, and one
    failed answer between two makes no other model of it."""
    digest = "sha256:" + "ef" * 32
    (tmp_path / "none.json").write_text('{"input": "image"}')
    with ProtocolServer(V1) as server:
        server.tamper = lambda reply: reply | {"labels": LABELS, "digest": digest, "version": "3"}
        settings = ApiSettings(api_url=server.url, model_card=str(tmp_path / "none.json"))
        api = open_backend("kserve_v1", settings, "solar-cells", "")
        pin = api.describe()
        assert (pin.digest, pin.version, pin.labels) == (digest, "3", LABELS)
        assert api.predict(PACK, 4).digest == digest
        passing = iter([Wrong(500)])
        server.faults = lambda _images: next(passing, None)
        assert api.describe() == pin
        server.faults = lambda _images: Wrong(500)
        with pytest.raises(ApiFaultError, match="worker_died"):
            api.describe()


def test_a_fixed_image_that_a_model_cannot_read_is_part_of_what_it_is_known_by(tmp_path: Path) -> None:
    """A model that fails on one of them is pinned, always alike; one that fails on all is not."""
    noise = pictures()[2].data
    with ProtocolServer(KSERVE) as server:
        whole = client(server, tmp_path).describe().digest
        server.faults = lambda images: Wrong(500) if noise in images else None
        found = {client(server, tmp_path).describe().digest for _ in range(2)}
        assert len(found - {whole}) == 1
        passing = iter([Wrong(500), Wrong(500)])
        server.faults = lambda _images: next(passing, None)
        settings = ApiSettings(api_url=server.url, model_card=str(tmp_path / "card.json"), payload="base64")
        assert open_backend("oip", settings, "solar-cells", "").describe().digest == whole
        server.faults = lambda _images: Wrong(500)
        with pytest.raises(ApiFaultError, match="worker_died"):
            client(server, tmp_path).describe()


def test_a_digest_that_only_replies_carry_is_the_models(tmp_path: Path) -> None:
    """As over gRPC, whose metadata have no room for it: the run is pinned to what its rows will name."""
    digest = "sha256:" + "ab" * 32
    with ProtocolServer(KSERVE) as server:
        server.tamper = lambda reply: reply | {"parameters": {"digest": digest}}
        api = client(server, tmp_path)
        assert api.describe().digest == api.predict(PACK, 4).digest == digest
        with pytest.raises(ConfigurationError, match="--model-card is of sha256:cdcd"):
            client(server, tmp_path, digest="sha256:" + "cd" * 32).describe()
        server.tamper = lambda reply: reply | {"parameters": {"digest": "none"}}
        with pytest.raises(ConfigurationError, match="is not sha256: and 64 hex digits"):
            client(server, tmp_path).describe()


def test_a_digest_on_the_card_holds_as_long_as_the_answers(tmp_path: Path) -> None:
    """The user's word is taken, and not for a model that answers differently from one moment to the next."""
    digest = "sha256:" + "cd" * 32
    with ProtocolServer(KSERVE) as server:
        api = client(server, tmp_path, digest=digest)
        assert api.describe().digest == api.describe().digest == digest
        server.answers = lambda data: probabilities(data)[::-1]
        assert api.describe().digest != digest


def test_card_and_server_must_not_contradict_each_other(tmp_path: Path) -> None:
    """Labels or a digest that differ are of two models: nothing is scored with a mixture."""
    with ProtocolServer(TRITON) as server:
        with pytest.raises(ConfigurationError, match="they are not of one model"):
            client(server, tmp_path, labels=LABELS[::-1]).describe()
        with pytest.raises(ConfigurationError, match="--model-card is of sha256:cdcd"):
            client(server, tmp_path, digest="sha256:" + "cd" * 32).describe()
        server.digest = "v7"
        with pytest.raises(ConfigurationError, match="digest 'v7' is not sha256"):
            client(server, tmp_path).describe()


def test_a_model_that_takes_no_files_is_told(tmp_path: Path) -> None:
    """Text and numbers of other kinds are not made here; of several inputs the card says which it is."""
    with ProtocolServer(Habits(raw=True, datatype="INT64")) as server:
        api = client(server, tmp_path)
        with pytest.raises(ConfigurationError, match=r"takes INT64 \[-1, 1\]: files \(BYTES\) and pixels"):
            api.describe()
    with ProtocolServer(Habits(raw=True, names=["size", "image"])) as server:
        with pytest.raises(ConfigurationError, match="takes the tensors size, image: say which"):
            client(server, tmp_path).describe()
        assert len(client(server, tmp_path, input="image").predict(PACK, 4).answers) == 3


def test_a_server_without_versions_is_told(tmp_path: Path) -> None:
    """KServe's server answers 501 where a version is named: the line says to leave it out."""
    with ProtocolServer(KSERVE) as server:
        api = client(server, tmp_path, "1.0")
        with pytest.raises(ConfigurationError, match="leave --model-version empty"):
            api.describe()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("card.json", "{", "is no model card: Expecting"),
        ("card.json", "3", "neither an object nor a list"),
        ("card.json", '{"lables": []}', "unknown lables; there are labels, digest"),
        ("card.json", '{"labels": [1]}', "labels.0: Input should be a valid string"),
        ("card.json", '{"digest": "v7"}', "digest: String should match"),
        ("card.json", '{"0": "a", "2": "c"}', "1 is missing"),
        ("other.json", "", "No such file"),
    ],
)
def test_a_card_that_is_none_is_one_line(name: str, text: str, says: str, tmp_path: Path) -> None:
    """The line names the file and what is wrong in it."""
    (tmp_path / "card.json").write_text(text)
    settings = ApiSettings(model_card=str(tmp_path / name))
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_backend("oip", settings, "solar-cells", "")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("{model}.json", json.dumps(LABELS)),
        ("{model}.json", json.dumps(dict(enumerate(LABELS)))),
        ("{model}.json", json.dumps({"model": {"digest": ""}, "labels": LABELS, "input": {"crop": 224}})),
        ("{model}.txt", "\n".join(LABELS) + "\n"),
    ],
)
def test_a_card_has_the_forms_that_people_have(name: str, text: str, tmp_path: Path) -> None:
    """A list, an archive's index_to_name.json, the handler's description, or lines of text."""
    (tmp_path / name.format(model="solar-cells")).write_text(text)
    with ProtocolServer(KSERVE) as server:
        settings = ApiSettings(api_url=server.url, model_card=str(tmp_path / name))
        assert open_backend("oip", settings, "solar-cells", "").describe().labels == LABELS


@pytest.mark.parametrize(
    "head",
    [
        {"labels": ["a", "b"], "head": "multilabel", "thresholds": [0.3, 0.6]},
        {"labels": [], "head": "regression", "quantity": {"name": "thickness", "unit": "mm"}},
    ],
    ids=["multilabel", "regression"],
)
def test_a_description_as_card_keeps_the_head(head: dict[str, Any], tmp_path: Path) -> None:
    """What the handler says of itself: without it, numbers would be taken for a softmax's."""
    (tmp_path / "m.json").write_text(json.dumps({"model": {"name": "m"}, "input": {"crop": 224}} | head))
    card = read_card(str(tmp_path / "m.json"), "m")
    declared = card.declaration(card.labels).model_dump(exclude_none=True)
    assert declared["head"] == head["head"]
    assert list(declared.get("thresholds") or []) == head.get("thresholds", [])
    assert (declared.get("quantity") or {}).get("name") == head.get("quantity", {}).get("name")


def test_the_csv_is_torchserves(call: Call, images: Path, runs: Path) -> None:
    """A server that tells the archive's digest gives the CSV of TorchServe to the byte."""
    scored(call, "reference", images)
    with ProtocolServer(TRITON) as server:
        asked = ("--api-url", server.url)
        assert scored(call, "oip", images, "--backend", "oip", *asked, asked=asked).code == 0
    found = [(runs / run / "output" / "predictions.csv").read_bytes() for run in ("reference", "oip")]
    assert found[0] == found[1]


def test_a_model_that_changes_within_a_shard_ends_the_run(call: Call, images: Path, tmp_path: Path) -> None:
    """Its answers are asked for again before a shard is finished, and no shard of two models is."""
    card = tmp_path / "labels.txt"
    card.write_text("\n".join(LABELS))
    with ProtocolServer(KSERVE) as server:
        asked = ("--api-url", server.url, "--model-card", card)
        assert call("preprocess", "--input", images, "--backend", "oip", "--run-id", "r", *asked).code == 0
        server.answers = lambda data: (
            probabilities(data)[::-1] if len(server.packs) > 14 else probabilities(data)
        )
        outcome = call("score", "--run-id", "r", *asked)
    assert outcome.code == ModelChangedError.exit_code
    assert "the run was started with" in outcome.err


_THIRD_PARTY = """
from imagebatch.contracts.records import ModelPin
from imagebatch.model_apis.base import Answer, ModelApi, Reply

LABELS = ["even", "odd"]
PIN = ModelPin(name="parity", version="1", digest="sha256:" + "0" * 64, labels=LABELS)


class Parity(ModelApi):
    def describe(self):
        return PIN

    def ready(self):
        return None

    def predict(self, images, top_k):
        named = [LABELS[::-1] if len(image.data) % 2 else LABELS for image in images]
        answers = tuple(Answer(labels=tuple(labels), probabilities=(0.75, 0.25)) for labels in named)
        return Reply(PIN.digest, answers)


def connect(settings, model, version):
    return Parity()
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of another maker, installed into a folder of its own."""
    wheel = tmp_path / "imagebatch_parity-1.0-py3-none-any.whl"
    info = "imagebatch_parity-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("imagebatch_parity.py", _THIRD_PARTY)
        packed.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: imagebatch-parity\nVersion: 1.0\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        entries = "parity = imagebatch_parity:connect\nlost = imagebatch_lost:connect\ntorchserve = x:y\n"
        packed.writestr(f"{info}/entry_points.txt", f"[imagebatch.model_apis]\n{entries}")
        packed.writestr(f"{info}/RECORD", "")
    target = tmp_path / "installed"
    install = [UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True)
    monkeypatch.syspath_prepend(str(target))
    return target


@pytest.mark.usefixtures("third_party")
def test_another_package_adds_a_model_api(call: Call, images: Path, runs: Path) -> None:
    """Its entry point is all that it takes: a whole run is scored by it, and nothing here knows it."""
    outcome = scored(call, "parity", images, "--backend", "parity", "--model", "parity")
    assert (outcome.code, outcome.last["predicted"]) == (0, 40)
    text = (runs / "parity" / "output" / "predictions.csv").read_text()
    assert ",odd,even,0.750000,0.250000,parity,1," in text


@pytest.mark.usefixtures("third_party")
def test_a_package_cannot_take_a_name_of_ours(server: ModelServer) -> None:
    """`torchserve` stays TorchServe, whoever claims it."""
    api = open_backend("torchserve", ApiSettings(api_url=server.url), "solar-cells", "")
    assert api.describe().labels == LABELS


@pytest.mark.usefixtures("third_party")
def test_a_model_api_that_is_not_there_is_one_line(call: Call, images: Path) -> None:
    """A name that nobody has is a wrong value; a package that cannot be loaded is told by its name."""
    nobody = call("preprocess", "--run-id", "r", "--input", images, "--backend", "nobody")
    assert nobody.code == 2
    assert "there is no model API 'nobody'; there are torchserve, local, oip" in nobody.err
    lost = call("preprocess", "--run-id", "r", "--input", images, "--backend", "lost")
    assert lost.code == 78
    assert "model API lost, imagebatch_lost:connect, cannot be loaded" in lost.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Input should be a valid dictionary"),
        ("request: [", "while parsing"),
        ("request: {body: $file}", "reply: Field required"),
        ("request: {body: $file, verb: PUT}\nreply: {images: $}", "request.verb: Extra inputs"),
        ("request: {body: $file}\nreply: {images: '$['}", "reply.images: "),
    ],
)
def test_a_template_that_is_none_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    """The line names the setting and what is wrong in the file."""
    path = tmp_path / "template.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="--request-template") as caught:
        open_backend("http", ApiSettings(request_template=str(path)), "solar-cells", "")
    assert says in str(caught.value)
    with pytest.raises(ConfigurationError, match="needs --request-template, a YAML file"):
        open_backend("http", ApiSettings(), "solar-cells", "")


def test_a_template_names_model_and_version(tmp_path: Path) -> None:
    """`$model` and `$version` are replaced in the path."""
    path = tmp_path / "template.yaml"
    path.write_text(
        "request: {path: '/of/$model?v=$version', body: $file}\n"
        "reply: {images: $, probabilities: $.scores, labels: $.names}"
    )
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    with ProtocolServer(Habits("http", raw=False, describes=False, most=1)) as server:
        settings = ApiSettings(
            api_url=server.url, request_template=str(path), model_card=str(tmp_path / "labels.txt")
        )
        open_backend("http", settings, "solar-cells", "7").predict(PACK, 2)
        assert set(server.asked) == {"/of/solar-cells?v=7"}
