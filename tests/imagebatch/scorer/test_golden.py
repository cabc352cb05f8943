"""The golden images, asked about before the first row."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.model_server import DIGEST, ModelServer, answer_to


def golden(path: Path, **changes: Any) -> Path:
    """Writes a set of two images with the answers that the server gives."""
    images = [
        {"name": f"g{seed}", "b64": base64.b64encode(jpeg(seed)).decode(), **answer_to(jpeg(seed), 4)}
        for seed in (500, 501)
    ]
    path.write_text(json.dumps({"model_digest": DIGEST, "tolerance": 1e-3, "images": images} | changes))
    return path


@pytest.fixture
def run_id(call: Call, images: Path) -> str:
    call("preprocess", "--run-id", "r", "--input", images)
    return "r"


def test_expected_answers_let_the_run_go_on(
    call: Call, run_id: str, tmp_path: Path, server: ModelServer
) -> None:
    """The probe comes before the first row."""
    outcome = call("score", "--run-id", run_id, "--golden", golden(tmp_path / "g.json"))
    assert outcome.last["predicted"] == 40
    assert server.images[:2] == [jpeg(500), jpeg(501)]


def test_a_template_may_find_no_file(call: Call, run_id: str, tmp_path: Path) -> None:
    """One setting serves all models; a model without golden images is scored without a probe."""
    golden(tmp_path / "solar-cells.golden.json", model_digest="sha256:other")
    assert call("score", "--run-id", run_id, "--golden", tmp_path / "{model}.golden.json").code == 78
    assert call("score", "--run-id", run_id, "--golden", tmp_path / "none/{model}.json").code == 0


def test_a_version_has_golden_images_of_its_own(call: Call, run_id: str, tmp_path: Path) -> None:
    """Those of `<name>-<version>` come before those of the name, which are of another version."""
    golden(tmp_path / "solar-cells.golden.json", model_digest="sha256:other")
    golden(tmp_path / "solar-cells-1.0.golden.json")
    assert call("score", "--run-id", run_id, "--golden", tmp_path / "{model}.golden.json").code == 0


@pytest.mark.parametrize("change", ["label", "no label", "probability", "fewer", "failure"])
def test_another_answer_stops_with_78(call: Call, run_id: str, tmp_path: Path, change: str) -> None:
    """A server that computes something else under the same digest is found before a row is written."""
    path = golden(tmp_path / "g.json")
    content = json.loads(path.read_text())
    image = content["images"][1]
    if change == "label":
        image["labels"].reverse()
        image["probabilities"].reverse()
    elif change == "no label":
        image["labels"] = []
    elif change == "fewer":
        image["probabilities"].pop()
    elif change == "probability":
        image["probabilities"][0] -= 0.01
    else:
        image["b64"] = base64.b64encode(b"BROKEN").decode()
    path.write_text(json.dumps(content))
    outcome = call("score", "--run-id", run_id, "--golden", path)
    assert (outcome.code, "golden image g501: expected" in outcome.err) == (78, True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model_digest": "sha256:other"}, "belongs to sha256:other"),
        ({"images": []}, "images"),
        ({"x": 1}, "x"),
        ({"images": [{"name": "g", "b64": ""}]}, "needs labels and probabilities, or a score"),
    ],
)
def test_a_file_that_cannot_be(
    call: Call, run_id: str, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    """The wrong file is a configuration error, not a wrong model."""
    outcome = call("score", "--run-id", run_id, "--golden", golden(tmp_path / "g.json", **changes))
    assert (outcome.code, text in outcome.err) == (78, True)
