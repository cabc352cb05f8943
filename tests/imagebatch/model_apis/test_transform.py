"""Answers in the files of a SageMaker batch transform: each is judged, none is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from imagebatch.errors import ConfigurationError
from imagebatch.model_apis import open_backend
from imagebatch.settings import ApiSettings

from tests.support.calls import Call
from tests.support.model_server import DIGEST, LABELS, ModelServer

RUN = ("--run-id", "r")
FLAGS = ("--backend", "transform", "--model-version", "1.0", "--max-failures", "50%")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """The file beside an archive."""
    path = tmp_path / "solar-cells.json"
    path.write_text(json.dumps({"labels": LABELS, "digest": DIGEST}))
    return path


@pytest.fixture
def outputs(images: Path, server: ModelServer, tmp_path: Path) -> Path:
    """What a transform leaves of the images: the reply to each one as a body of its own."""
    folder = tmp_path / "outputs"
    for path in images.rglob("*.jpg"):
        place = folder / f"{path.relative_to(images)}.out"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(answer(server, path.read_bytes(), 4)))
    return folder


def answer(server: ModelServer, data: bytes, top_k: int) -> dict[str, object]:
    """The handler's reply to one image."""
    api = open_backend("torchserve", ApiSettings(api_url=server.url), "solar-cells", "")
    from imagebatch.model_apis.base import ImagePayload  # noqa: PLC0415 - only to ask the server

    (found,) = api.predict([ImagePayload("0", data)], top_k).answers
    image = {"id": "0", "labels": found.labels, "probabilities": found.probabilities}
    return {"model": {"name": "solar-cells", "version": "1.0", "digest": DIGEST}, "images": [image]}


def scored(call: Call, images: Path, card: Path, outputs: Path, *more: object) -> list[int]:
    """Run the stages; return the exit codes of those that were started."""
    told = ("--model-card", card)
    codes = [call("preprocess", *RUN, *FLAGS, *told, *more, "--input", images).code]
    codes.append(call("score", *RUN, *told, "--transform-output", outputs).code)
    return [*codes, call("postprocess", *RUN).code]


def test_a_run_of_the_files_is_a_run_of_the_server(
    call: Call, images: Path, card: Path, outputs: Path, runs: Path
) -> None:
    """The same predictions.csv, byte for byte, and a certificate that is proven."""
    assert scored(call, images, card, outputs) == [0, 0, 0]
    assert call("verify", *RUN).code == 0
    assert call("run", "--run-id", "other", "--input", images, "--no-report").code == 0
    files = [runs / name / "output" / "predictions.csv" for name in ("r", "other")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_fewer_labels_than_the_job_gave_are_the_most_probable(
    call: Call, images: Path, card: Path, outputs: Path, runs: Path
) -> None:
    """A run with fewer cuts them; one with more cannot be, and says so before a row is written."""
    assert scored(call, images, card, outputs, "--top-k", 2) == [0, 0, 0]
    head = (runs / "r" / "output" / "predictions.csv").read_text().splitlines()[0]
    assert "label_2" in head
    assert "label_3" not in head


def test_each_image_without_a_good_answer_fails_alone(
    call: Call, images: Path, card: Path, outputs: Path, runs: Path
) -> None:
    """A file that is missing, an error's text, half a reply, the reply to a refused image: four failures."""
    names = sorted(path.relative_to(outputs).as_posix() for path in outputs.rglob("*.out"))
    (outputs / names[0]).unlink()
    (outputs / names[7]).write_text(
        '{"code": 500, "type": "InternalServerException", "message": "Worker died."}'
    )
    (outputs / names[20]).write_bytes((outputs / names[20]).read_bytes()[:40])
    refused = json.loads((outputs / names[33]).read_bytes())
    refused["images"] = [{"id": "0", "error": {"reason": "truncated", "detail": "the file ends early"}}]
    (outputs / names[33]).write_text(json.dumps(refused))
    assert scored(call, images, card, outputs) == [0, 0, 0]
    failed = (runs / "r" / "output" / "failures.csv").read_text()
    lines = {line.split(",")[0]: line for line in failed.splitlines()[1:]}
    assert sorted(lines) == [names[place].removesuffix(".out") for place in (0, 7, 20, 33)]
    assert f"the transform job left no {names[0]}" in lines[names[0].removesuffix(".out")]
    assert "not the expected JSON" in lines[names[7].removesuffix(".out")]
    assert ",truncated," in lines[names[33].removesuffix(".out")]
    assert len((runs / "r" / "output" / "predictions.csv").read_text().splitlines()) == 37


def test_an_image_that_changed_before_the_job_is_no_answer_to_what_was_listed(
    call: Call, images: Path, card: Path, outputs: Path, runs: Path
) -> None:
    """Its file holds another picture's answer: the bytes are read again and compared."""
    assert call("preprocess", *RUN, *FLAGS, "--model-card", card, "--input", images).code == 0
    (images / "001.jpg").write_bytes((images / "002.jpg").read_bytes())
    assert call("score", *RUN, "--model-card", card, "--transform-output", outputs).code == 0
    assert call("postprocess", *RUN).code == 0
    assert "001.jpg" in (runs / "r" / "output" / "failures.csv").read_text()


def test_another_models_answers_end_the_run(call: Call, images: Path, card: Path, outputs: Path) -> None:
    """78: every reply carries the digest of what gave it."""
    for path in outputs.rglob("*.out"):
        path.write_text(path.read_text().replace("ab" * 32, "cd" * 32))
    assert scored(call, images, card, outputs)[:2] == [0, 78]


def test_no_folder_yet_is_an_api_that_does_not_answer(
    call: Call, images: Path, card: Path, tmp_path: Path
) -> None:
    """69: the job has not ended, and the same command later goes on."""
    codes = scored(call, images, card, tmp_path / "nowhere")
    assert codes[:2] == [0, 69]


def test_what_is_missing_is_said(call: Call, images: Path, card: Path, tmp_path: Path) -> None:
    """A card without a digest, and no folder to read."""
    bare = tmp_path / "labels.txt"
    bare.write_text("\n".join(LABELS))
    done = call("preprocess", *RUN, *FLAGS, "--model-card", bare, "--input", images)
    assert (done.code, "with the model's labels and digest" in done.err) == (78, True)
    api = open_backend("transform", ApiSettings(model_card=str(card)), "solar-cells", "1.0")
    with pytest.raises(ConfigurationError, match="--transform-output"):
        api.ready()
