"""Heads: what no model can have answered, how answers are written, and what servers' numbers become."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from imagebatch.contracts.answers import Answer
from imagebatch.contracts.records import HeadKind, ModelPin, Quantity
from imagebatch.contracts.rows import SCORES_SCHEMA
from imagebatch.errors import ConfigurationError
from imagebatch.heads import head_of
from imagebatch.heads.multilabel import label_text
from imagebatch.heads.regression import score_text
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload, ModelApi
from imagebatch.model_apis.reply import parse_description, parse_reply
from imagebatch.settings import ApiSettings
from imagebatch.stages.check import suites, validation
from imagebatch.stages.check.frames import Totals

from tests.support.calls import Call, scored
from tests.support.images import encoded, jpeg, photograph
from tests.support.model_server import DIGEST, LABELS, ModelServer
from tests.support.protocol_server import Habits, ProtocolServer

PIN = ModelPin(name="m", version="1", digest=DIGEST, labels=LABELS)
SETS = PIN.model_copy(update={"head": HeadKind.MULTILABEL, "thresholds": [0.5, 0.5, 0.3, 0.1]})
QUANTITY = Quantity(name="thickness", unit="mm", lowest=0, highest=12.1)
SCORES = PIN.model_copy(update={"head": HeadKind.REGRESSION, "labels": [], "quantity": QUANTITY})
SHORT = {"probabilities", "labels_reach_thresholds", "least_probability"}
NOTHING = dict.fromkeys(("labels", "probabilities", "classes", "score"))
SET = NOTHING | {"labels": [LABELS[0], LABELS[2]], "probabilities": [0.9, 0.4, 0.3, 0.0]}
SCORE = NOTHING | {"score": 3.5}
PACK = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(3)]


def test_whole_answers_have_no_problem() -> None:
    """An answer without any label is one, and so are the ends of a range, as float32 has them."""
    sets, scores = head_of(SETS, 1), head_of(SCORES, 1)
    nothing = NOTHING | {"labels": [], "probabilities": [0.0, 0.0, 0.0, 0.0]}
    assert [sets.problem(row) for row in (SET, nothing)] == ["", ""]
    ends = [SCORE | {"score": score} for score in (0, 0.0, 12.1, float(np.float32(12.1)))]
    assert [scores.problem(row) for row in ends] == [""] * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": None},
        {"labels": [LABELS[0]]},
        {"labels": [LABELS[0], LABELS[1], LABELS[2]]},
        {"labels": [LABELS[2], LABELS[0]]},
        {"labels": [LABELS[0], "cat"]},
        {"labels": [LABELS[0], 7]},
        {"probabilities": None},
        {"probabilities": [0.9, 0.4, 0.3]},
        {"probabilities": [0.9, 0.4, 0.3, 0.0, 0.0]},
        {"probabilities": [0.9, 0.4, 0.3, -0.1]},
        {"probabilities": [1.1, 0.4, 0.3, 0.0]},
        {"probabilities": [0.9, 0.4, 0.3, math.nan]},
        {"probabilities": [0.9, 0.4, 0.3, "0"]},
        {"probabilities": [True, 0.4, 0.3, 0.0]},
        {"classes": [0, 2]},
        {"score": 1.0},
    ],
)
def test_impossible_sets_are_told(changes: dict[str, Any]) -> None:
    """Wrong numbers, a wrong count, and labels that are not those that reach their thresholds."""
    assert head_of(SETS, 1).problem(SET | changes)


@pytest.mark.parametrize(
    "changes",
    [
        *({"score": score} for score in (None, math.nan, math.inf, -0.1, 12.2, 10**400, "3", True, [3.5])),
        {"labels": ["mono-sound"]},
        {"probabilities": [0.5]},
    ],
)
def test_impossible_scores_are_told(changes: dict[str, Any]) -> None:
    """No number, not finite, out of the declared range, or more than a number."""
    assert head_of(SCORES, 1).problem(SCORE | changes)


def test_no_head_takes_the_answer_of_another() -> None:
    """A server that answers by another head than it described is not believed."""
    rows = {
        HeadKind.SOFTMAX: NOTHING | {"labels": LABELS, "probabilities": [0.4, 0.3, 0.2, 0.1]},
        HeadKind.MULTILABEL: SET,
        HeadKind.REGRESSION: SCORE,
    }
    for pin in (PIN, SETS, SCORES):
        head = head_of(pin, 4)
        assert [kind for kind, row in rows.items() if not head.problem(row)] == [pin.head]


@pytest.mark.parametrize(
    ("head", "entry"),
    [
        ("regression", {"score": math.nan}),
        ("regression", {"score": math.inf}),
        ("regression", {}),
        ("regression", {"score": "much"}),
        ("multilabel", {"labels": [], "probabilities": [1.5]}),
        ("multilabel", {"labels": [], "probabilities": [math.nan]}),
        ("multilabel", {"score": 1.0}),
        ("softmax", {"score": 1.0}),
    ],
)
def test_a_reply_that_cannot_be_is_a_fault(head: str, entry: dict[str, Any]) -> None:
    """Whatever the head, no such number reaches a row."""
    model = {"name": "m", "version": "1", "digest": DIGEST}
    body = json.dumps({"model": model, "head": head, "images": [{"id": "a"} | entry]}).encode()
    with pytest.raises(ApiFaultError) as caught:
        parse_reply(body, [ImagePayload("a", b"")], 1)
    assert caught.value.fault is Fault.BAD_REPLY


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "segmentation"},
        {"head": "multilabel"},
        {"head": "multilabel", "thresholds": [0.5]},
        {"head": "multilabel", "thresholds": [0.5, 0.5, 0.5, 0]},
        {"head": "multilabel", "thresholds": [0.5] * 4, "labels": ["a", "b", "a", "c"]},
        {"head": "regression", "quantity": {"name": "x"}},
        {"head": "regression", "labels": []},
        {"head": "regression", "labels": [], "quantity": {"name": " "}},
        {"head": "regression", "labels": [], "quantity": {"name": "x", "lowest": 3, "highest": 3}},
        {"head": "regression", "labels": [], "quantity": {"name": "x", "unit": "\u202em"}},
        {"thresholds": [0.5] * 4},
        {"quantity": {"name": "x"}},
    ],
)
def test_a_head_that_is_not_understood_is_a_configuration_error(changes: dict[str, Any]) -> None:
    """A wrong number in silence is worse than no run: 78, and one line that says why."""
    model = {"name": "m", "version": "1", "digest": DIGEST}
    with pytest.raises(ConfigurationError, match=r"declares a head that this version .* cannot do: .+"):
        parse_description(json.dumps({"model": model, "labels": LABELS} | changes).encode())


def test_labels_of_a_cell_can_be_taken_apart() -> None:
    """Whatever a label is called: joined by bars, written as an id is, and given back by unquote."""
    hostile = ["a|b", "100%", "=cmd()", "two\r\nlines", "é, ü", '"', "%7C", "plain"]
    text = label_text(hostile)
    assert [unquote(part) for part in text.split("|")] == hostile
    assert not set(text) & set("\r\n")
    assert label_text(["=1+1"]).startswith("%3D")
    assert label_text([]) == ""


@pytest.mark.parametrize("score", [0.1, -0.0, 3.0, 1e-30, 3.4e38, -123456.79, 16777216.0])
def test_a_score_is_written_exactly(score: float) -> None:
    """The text gives the very float32 back, whatever its size."""
    (text,) = score_text(pa.array([score], pa.float32())).to_pylist()
    assert np.float32(text).tobytes() == np.float32(score).tobytes()
    assert len(text) <= 14


@pytest.mark.parametrize(
    ("pin", "changes", "failing"),
    [
        (SETS, {}, set()),
        (SETS, {"labels": [LABELS[0]]}, {"labels_reach_thresholds"}),
        (SETS, {"probabilities": [0.9, 0.4, 1.5, 0.0]}, {"most_probability"}),
        (SETS, {"probabilities": [0.9, 0.4, 0.3, -1.0]}, {"least_probability"}),
        (SETS, {"probabilities": [0.9, 0.4, 0.3, math.nan]}, {"least_probability", "complete"}),
        (SETS, {"probabilities": [0.9, 0.4, 0.3]}, {*SHORT, "complete"}),
        (SETS, {"labels": None}, {"complete"}),
        (SCORES, {}, set()),
        (SCORES, {"score": 12.2}, {"score"}),
        (SCORES, {"score": -math.inf}, {"score"}),
        (SCORES, {"score": None}, {"complete"}),
        (SCORES.model_copy(update={"quantity": Quantity(name="x")}), {"score": math.inf}, {"score"}),
    ],
)
def test_each_rule_of_the_check_can_fail(
    pin: ModelPin, changes: dict[str, Any], failing: set[str], tmp_path: Path
) -> None:
    """A wrong answer that has come into the scores all the same is found by the rule that is about it."""
    head = head_of(pin, 1)
    good = SET if pin is SETS else SCORE
    failed = {"reason": "truncated", "detail": "x"}
    rows = [dict.fromkeys(SCORES_SCHEMA.names) | row for row in (good, good | changes, NOTHING | failed)]
    table = pa.Table.from_pylist(rows, SCORES_SCHEMA)
    frame = pa.table(head.frame(table)).to_pandas()
    frame["complete"] = frame.notna().all(axis="columns") ^ table["reason"].is_valid().to_numpy()
    rules = [suites._expected(rule) for rule in head.rules()]  # noqa: SLF001 (the suite of a whole run needs one)
    rules.append(suites.gxe.ExpectColumnValuesToBeInSet(column="complete", value_set=[True]))
    validator = validation.Validator(tmp_path)
    validator.validate(validation.Suite("rows", rules), [frame])
    results = validator.results["rows"][0]["results"]
    assert {one["expectation_config"]["kwargs"]["column"] for one in results if not one["success"]} == failing


def test_counted_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are all different: the first so many are counted, and shares are still of all."""
    monkeypatch.setattr("imagebatch.stages.check.frames._MOST_ANSWERS", 3)
    totals = Totals("score_text")
    for first in (0, 3, 6):
        frame = pa.table({"image_id": [f"{first + n}" for n in range(3)]}).to_pandas()
        totals.add(frame.assign(score_text=["1", f"{first}.5", f"{first}.7"], without_result=0))
    assert (totals.answered, dict(totals.answers)) == (9, {"1": 3, "0.5": 1, "0.7": 1})
    assert max(totals.shares()["share"]) == pytest.approx(3 / 9)


# Servers of other makers.

PROTOCOLS = {
    "oip": Habits(raw=False, tells=False, describes=False),
    "kserve_v1": Habits("kserve_v1", raw=False, describes=False),
    "mlflow": Habits("mlflow", raw=False, describes=False),
    "http": Habits("http", raw=False, describes=False),
}
TEMPLATE = """
request: {path: /of/$model/classify, body: {pictures: $images}, image: {content: $base64}}
reply: {images: "$.results[*]", probabilities: $.scores, reason: $.error}
"""


def client(server: ProtocolServer, folder: Path, **card: Any) -> ModelApi:
    (folder / "template.yaml").write_text(TEMPLATE)
    named = {"input": "image"} if server.habits.protocol == "kserve_v1" else {}
    (folder / "card.json").write_text(json.dumps(named | card))
    settings = ApiSettings(
        api_url=server.url,
        model_card=str(folder / "card.json"),
        request_template=str(folder / "template.yaml"),
        request_timeout=5,
    )
    return open_backend(server.habits.protocol, settings, "solar-cells", "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_scores_with_every_head(protocol: str, tmp_path: Path) -> None:
    """The model card says what a server's bare numbers are; the answers are those of the head."""
    logits = {data: [float(at), -2.0, 0.5, -3.0] for at, data in enumerate(image.data for image in PACK)}
    with ProtocolServer(PROTOCOLS[protocol]) as server:
        server.answers = lambda data: logits.get(data, [0.25, 0.5, 1.0, 2.0])
        card = {"labels": LABELS, "head": "multilabel", "scores": "logits", "thresholds": {LABELS[0]: 0.6}}
        api = client(server, tmp_path, **card)
        pin = api.describe()
        assert (pin.head, pin.thresholds) == (HeadKind.MULTILABEL, [0.6, 0.5, 0.5, 0.5])
        answers = api.predict(PACK, 1).answers
        assert [answer.labels for answer in answers] == [(LABELS[2],), *[(LABELS[0], LABELS[2])] * 2]
        assert answers[1].probabilities == pytest.approx([0.731059, 0.119203, 0.622459, 0.047426], abs=1e-6)
        assert not any(head_of(pin, 1).problem(head_of(pin, 1).row(answer)) for answer in answers)
        other = client(server, tmp_path, **card | {"thresholds": 0.9}).describe()
        assert other.digest != pin.digest

        server.answers = lambda data: [1e-6 * len(data)]
        quantity = {"name": "size", "unit": "MB", "lowest": 0, "highest": 1e-6 * len(PACK[1].data)}
        api = client(server, tmp_path, head="regression", quantity=quantity)
        pin = api.describe()
        assert (pin.head, pin.labels, pin.quantity) == (HeadKind.REGRESSION, [], Quantity(**quantity))
        answers = api.predict(PACK, 1).answers
        for image, answer in zip(PACK, answers, strict=True):
            if np.float32(1e-6 * len(image.data)) <= np.float32(quantity["highest"]):
                assert answer.score == pytest.approx(1e-6 * len(image.data), rel=1e-6)
            else:
                assert (answer.reason, answer.score) == ("out_of_range", None)
        server.answers = lambda data: [1e-6 * len(data) * 1.2]
        assert client(server, tmp_path, head="regression", quantity=quantity).describe().digest != pin.digest
        server.answers = lambda _data: [1.0, 2.0]
        with pytest.raises(ApiFaultError, match="for one score"):
            client(server, tmp_path, head="regression", quantity=quantity).predict(PACK, 1)


@pytest.mark.parametrize(
    ("card", "text"),
    [
        ({"head": "multilabel", "labels": LABELS, "thresholds": {"cat": 0.5}}, "no label of the model"),
        ({"head": "multilabel", "labels": LABELS, "thresholds": [0.5]}, "1 thresholds for 4 labels"),
        ({"head": "multilabel", "labels": ["a", "a", "b", "c"]}, "have one name"),
        ({"head": "multilabel", "labels": LABELS, "thresholds": 2}, "less than or equal to 1"),
        ({"head": "regression"}, "needs a quantity"),
        ({"head": "ranking", "labels": LABELS}, "head"),
        ({"labels": LABELS}, 'do not exclude each other, "head": "multilabel"'),
    ],
)
def test_a_card_that_cannot_be_is_refused(card: dict[str, Any], text: str, tmp_path: Path) -> None:
    """One line names what is wrong; a softmax that is none is told of the other head."""
    with ProtocolServer(PROTOCOLS["oip"]) as server:
        server.answers = lambda _data: [0.9, 0.8, 0.7, 0.1]
        with pytest.raises(ConfigurationError, match=text):
            client(server, tmp_path, **card).describe()


# Runs with a server whose answers are wrong.


def measuring(server: ModelServer, score: Callable[[dict[str, Any]], Any]) -> None:
    """Lets the server measure: `score` of an image's entry."""

    def tamper(reply: dict[str, Any]) -> bytes:
        entries = [{"id": entry["id"]} | score(entry) for entry in reply["images"]]
        return json.dumps(reply | {"head": "regression", "images": entries}).encode()

    server.head, server.labels, server.tamper = (
        {
            "head": "regression",
            "quantity": {"name": "thickness", "lowest": 0, "highest": 1},
        },
        [],
        tamper,
    )


@pytest.mark.parametrize("wrong", [{"score": math.nan}, {"score": 1.5}, {"labels": ["a"]}])
def test_one_image_with_an_impossible_score_is_quarantined(
    call: Call, images: Path, runs: Path, server: ModelServer, wrong: dict[str, Any]
) -> None:
    """It alone has no prediction, the reason is told, and no such number is in any file."""
    poisoned = next(iter(sorted(path.name for path in images.glob("*.jpg"))))
    digest = hashlib.sha256((images / poisoned).read_bytes()).hexdigest()[:16]
    measuring(server, lambda entry: wrong if entry["id"].endswith(digest) else {"score": 0.5})
    outcome = scored(call, "r", images)
    assert (outcome.code, outcome.last["predicted"], outcome.last["failed"]) == (0, 39, 1)
    assert f"{poisoned}," in (runs / "r/output/failures.csv").read_text()
    assert ",quarantined," in (runs / "r/output/failures.csv").read_text()
    assert "nan" not in (runs / "r/output/predictions.csv").read_text()


def test_another_declaration_in_the_middle_ends_the_run(
    call: Call, images: Path, server: ModelServer
) -> None:
    """The same digest under another head, unit or threshold is another model: 78, before a row is written."""
    measuring(server, lambda _entry: {"score": 0.5})
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    server.head = server.head | {"quantity": {"name": "thickness", "unit": "mm", "lowest": 0, "highest": 1}}
    outcome = call("score", "--run-id", "r")
    assert (outcome.code, "is now declared as" in outcome.err) == (78, True)


def test_other_labels_in_the_middle_end_the_run(call: Call, images: Path, server: ModelServer) -> None:
    """The same digest, and classes in another order: a model card was changed under the run."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    server.labels = server.labels[::-1]
    outcome = call("score", "--run-id", "r")
    assert (outcome.code, "now has other labels" in outcome.err) == (78, True)


def test_the_description_of_a_head_is_a_card(tmp_path: Path) -> None:
    """What the handler says of itself carries the head with it: its numbers are not taken for a softmax."""
    described = {"model": {"digest": DIGEST}, "input": {"crop": 224}}
    with ProtocolServer(PROTOCOLS["oip"]) as server:
        server.answers = lambda _data: [0.9, 0.8, 0.7, 0.1]
        sets = {"labels": LABELS, "head": "multilabel", "thresholds": [0.5, 0.5, 0.3, 0.1]}
        pin = client(server, tmp_path, **described, **sets).describe()
        assert (pin.head, pin.thresholds) == (HeadKind.MULTILABEL, sets["thresholds"])
        server.answers = lambda _data: [0.5]
        score = {"labels": [], "head": "regression", "quantity": {"name": "size"}}
        assert client(server, tmp_path, **described, **score).describe().quantity == Quantity(name="size")


def test_what_says_nothing_about_a_head_is_refused(call: Call, images: Path, server: ModelServer) -> None:
    """--class-index numbers the classes of a softmax; a carried column may not be called as one of ours."""
    measuring(server, lambda _entry: {"score": 0.5})
    outcome = call("preprocess", "--run-id", "r", "--input", images, "--class-index")
    assert (outcome.code, "--class-index is for a softmax" in outcome.err) == (78, True)
    listed = images.parent / "list.csv"
    listed.write_text(f"uri,Score\n{images / '001.jpg'},3\n")
    outcome = call("preprocess", "--run-id", "s", "--manifest", listed, "--carry", "Score")
    assert (outcome.code, "column Score cannot be carried" in outcome.err) == (65, True)
    server.head, server.labels = {}, LABELS
    assert call("preprocess", "--run-id", "t", "--manifest", listed, "--carry", "Score").code == 0


def test_golden_scores_and_sets(call: Call, images: Path, server: ModelServer, tmp_path: Path) -> None:
    """Off by more than the tolerance of the range, of any class's probability: 78 before the first row."""
    measuring(server, lambda _entry: {"score": 0.5})
    image = {"name": "g", "b64": base64.b64encode(jpeg(1)).decode()}
    golden = tmp_path / "golden.json"
    for score, code in ((0.5005, 0), (0.503, 78)):
        content = {"model_digest": DIGEST, "tolerance": 1e-3, "images": [image | {"score": score}]}
        golden.write_text(json.dumps(content))
        assert call("preprocess", "--run-id", f"r{code}", "--input", images).code == 0
        assert call("score", "--run-id", f"r{code}", "--golden", golden).code == code
    head = head_of(SETS, 1)
    expected = Answer(labels=(LABELS[0],), probabilities=(0.5, 0.1, 0.1, 0.0))
    assert head.off(
        expected, dataclasses.replace(expected, labels=(), probabilities=(0.499, 0.1, 0.1, 0))
    ) == (pytest.approx(1e-3))
    assert head.off(expected, Answer(score=1.0)) == 1.0


def test_drift_compares_what_the_head_answers(
    call: Call, runs: Path, server: ModelServer, tmp_path: Path
) -> None:
    """Scores that move alarm; against the baseline of another head, only the images are compared."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(60):
        (folder / f"{seed:02}.png").write_bytes(encoded(photograph(seed, (96, 80))))

    def score(entry: dict[str, Any], moved: float) -> dict[str, float]:
        return {"score": moved + int(entry["id"].partition("-")[2][:4], 16) / 2**17}

    def labelled(reply: dict[str, Any]) -> bytes:
        entries = []
        for entry in reply["images"]:
            odd = int(entry["id"].partition("-")[2][:2], 16) % 2
            numbers = [0.9, 0.8 * odd, 0.0, 0.0]
            entries.append({"id": entry["id"], "labels": LABELS[: 1 + odd], "probabilities": numbers})
        return json.dumps(reply | {"head": "multilabel", "images": entries}).encode()

    for run_id, moved in (("good", 0.0), ("moved", 0.3)):
        measuring(server, functools.partial(score, moved=moved))
        assert scored(call, run_id, folder).code == 0
    server.head, server.labels, server.tamper = (
        {"head": "multilabel", "thresholds": [0.5] * 4},
        LABELS,
        labelled,
    )
    assert scored(call, "sets", folder).code == 0
    for run_id in ("good", "sets"):
        assert call("baseline", "--run-id", run_id, "--output", runs / f"{run_id}.parquet").code == 0
    wanted = ("--output", runs / "x.parquet", "--labels", runs / "labels.csv")
    refused = call("baseline", "--run-id", "good", *wanted)
    assert (refused.code, "calibrates the confidences of a softmax" in refused.err) == (78, True)

    def compared(run_id: str, baseline: str) -> dict[str, Any]:
        assert call("report", "--run-id", run_id, "--baseline", runs / f"{baseline}.parquet").code == 0
        result = json.loads((runs / run_id / "quality/drift.json").read_bytes())
        return {test["name"]: test["drifting"] for test in result["tests"]} | result["left_out"]

    assert compared("good", "good")["score"] is False
    assert [name for name, drifting in compared("moved", "good").items() if drifting is True] == ["score"]
    sets = compared("sets", "sets")
    assert sets.keys() >= {"mix of label sets", "labels per image", "answers"}
    assert not sets.keys() & {"score", "confidence", "class mix"}
    page = (runs / "sets/output/report.html").read_text("utf-8")
    assert 'title="baseline 100 %"' in page  # each image has the first label
    mixed = compared("good", "sets")
    assert "numbers mean something else" in mixed["answers"]
    assert not mixed.keys() & {"score", "labels per image"}
