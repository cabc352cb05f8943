"""KServe's storage of an archive: complete, the same every time, and nothing else than what was certified."""

import base64
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from imagebatch_pixels import decode
from imagebatch_training.archive.archive import archive_paths, ensure_archive, golden_path
from imagebatch_training.archive.golden import golden_set
from imagebatch_training.archive.layout import lay_out, render_config
from imagebatch_training.cli import main
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import sha256_file
from imagebatch_training.settings import Model, Settings
from PIL import Image

from handlers import imagebatch_serve as serve
from tests.support.handler_archives import HANDLERS, write_archive

pytestmark = pytest.mark.timeout(400)  # the first trains and archives, on busy machines, too
FILES = {
    "torchserve/config/config.properties",
    "torchserve/model-store/shapes.mar",
    "openvino/1/model.xml",
    "openvino/1/model.bin",
    "card.json",
}


@pytest.fixture(scope="module")
def mar(trained: Settings) -> Path:
    ensure_archive(trained)
    return archive_paths(trained)[0]


def test_a_layout_is_whole_and_made_once(mar: Path, tmp_path: Path) -> None:
    """The second time nothing is written; a file that was damaged is written again, and only that."""
    first = lay_out(mar, tmp_path, HANDLERS)
    there = {
        file.relative_to(tmp_path / "shapes").as_posix() for file in tmp_path.rglob("*") if file.is_file()
    }
    assert there == set(first["written"]) == FILES
    assert first["written"][-1].endswith(".mar")
    assert sha256_file(tmp_path / "shapes/torchserve/model-store/shapes.mar") == sha256_file(mar)
    assert lay_out(mar, tmp_path, HANDLERS)["written"] == []
    (tmp_path / "shapes/openvino/1/model.bin").write_bytes(b"")
    assert lay_out(mar, tmp_path, HANDLERS)["written"] == ["openvino/1/model.bin"]


def test_the_configuration_is_what_the_serving_image_takes(tmp_path: Path) -> None:
    """Of the shipped lines those change that a pod needs changed; the management API stays on loopback."""
    shipped = (HANDLERS / "config.properties").read_text("utf-8")
    made = render_config(shipped, "shapes.mar")

    def lines(text: str) -> set[str]:
        return {line for line in text.splitlines() if line and not line.startswith("#")}

    assert {line.partition("=")[0] for line in lines(made) - lines(shipped)} == {
        "inference_address",
        "model_store",
        "load_models",
        "allowed_urls",
        "enable_model_api",
        "disable_token_authorization",
    }
    assert "management_address=http://127.0.0.1:8081" in lines(made)
    assert "# Loopback only" in shipped  # said of all addresses, and no longer true of one
    assert "# Loopback only" not in made
    found = serve.configuration(f"{shipped}\n{made}", {"IMAGEBATCH_INFERENCE_HOST": "0.0.0.0"}, tmp_path)  # noqa: S104 - not bound
    assert found["inference_address"] == "http://0.0.0.0:8080"
    assert found["allowed_urls"].startswith(f"file://{serve.literal(tmp_path)}/[A-Za-z0-9_]")
    with pytest.raises(ConfigurationError, match="has no"):
        render_config("job_queue_size=1\n", "shapes.mar")


def test_the_graph_is_asked_by_name(mar: Path, trained: Settings, tmp_path: Path) -> None:
    """Read by openvino as its server would: names, shape, and the answers of the golden images."""
    lay_out(mar, tmp_path, HANDLERS)
    graph = ov.Core().read_model(tmp_path / "shapes/openvino/1/model.xml")
    crop = trained.model.crop
    ports = [*graph.inputs, *graph.outputs]
    assert [port.get_any_name() for port in ports] == ["image", "logits", "features"]
    assert graph.inputs[0].get_partial_shape().to_string() == f"[1,3,{crop},{crop}]"
    assert graph.inputs[0].get_element_type().to_string() == "u8"
    card = json.loads((tmp_path / "shapes/card.json").read_text("utf-8"))
    assert card["labels"] == ["bright", "dark", "striped"]
    assert (card["scores"], card["output"]) == ("logits", "logits")
    assert (card["pixels"]["crop"], card["pixels"]["datatype"]) == (crop, "UINT8")
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for image in json.loads(golden_path(trained).read_text("utf-8"))["images"]:
        pixels = decode(base64.b64decode(image["b64"]), resize=card["pixels"]["resize"], crop=crop)
        logits = compiled({"image": pixels[None].numpy()})["logits"][0]
        assert card["labels"][int(logits.argmax())] == image["labels"][0]
        probability = float(np.exp(logits - logits.max()).max() / np.exp(logits - logits.max()).sum())
        assert probability == pytest.approx(image["probabilities"][0], abs=1e-6)


def test_what_was_not_certified_is_refused(mar: Path, trained: Settings, tmp_path: Path) -> None:
    """An archive beside another's record or golden images, one with other answers, and no archive at all."""
    copy = tmp_path / "shapes.mar"
    shutil.copyfile(mar, copy)
    record = json.loads(mar.with_suffix(".json").read_text("utf-8"))
    copy.with_suffix(".json").write_text(json.dumps(record | {"mar_sha256": "0" * 64}))
    with pytest.raises(DataError, match=r"is not the archive that shapes\.json describes"):
        lay_out(copy, tmp_path / "out", HANDLERS)
    copy.with_suffix(".json").unlink()
    golden = json.loads(golden_path(trained).read_text("utf-8"))
    beside = tmp_path / "shapes.golden.json"
    beside.write_text(json.dumps(golden | {"model_digest": "sha256:" + "0" * 64}))
    with pytest.raises(DataError, match="is of the archive sha256:0000"):
        lay_out(copy, tmp_path / "out", HANDLERS)
    golden["images"][0]["probabilities"][0] -= 0.1
    beside.write_text(json.dumps(golden))
    with pytest.raises(DataError, match="it computes something else here"):
        lay_out(copy, tmp_path / "out", HANDLERS)
    beside.unlink()
    copy.write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigurationError, match="is no model archive"):
        lay_out(copy, tmp_path / "out", HANDLERS)
    assert not (tmp_path / "out").exists()


def test_a_cascade_has_no_openvino_layout(trained: Settings, tmp_path: Path) -> None:
    """What is more than one graph is served by the archive's own code alone, and that is said."""
    model = Model(**{**vars(trained.model), "engine": "openvino-int8-cascade"})
    paths = type(trained.paths)(**{**vars(trained.paths), "model_store": str(tmp_path)})
    release = replace(trained.release, images=8, agreement=0.0)
    settings = replace(trained, model=model, paths=paths, release=release)
    ensure_archive(settings)
    made = lay_out(archive_paths(settings)[0], tmp_path / "out", HANDLERS)
    assert made["left_out"].startswith("openvino: what openvino-int8-cascade computes")
    assert not (tmp_path / "out" / made["name"] / "openvino").exists()


def test_a_graph_of_an_earlier_archive_goes(tmp_path: Path) -> None:
    """Where the next archive has none: beside its card, the old one would answer under the new digest."""
    out = tmp_path / "out" / "solar-cells"
    for number, engine in enumerate(("openvino", "openvino-bf16")):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = write_archive(folder, engine=engine)
        with zipfile.ZipFile(made, "a") as archive:
            for suffix in ("xml", "bin"):
                archive.write(folder / f"unpacked/model.{suffix}", f"bf16.{suffix}")
        lay_out(made, out.parent, HANDLERS)
        assert (out / "openvino/1/model.xml").exists() == (engine == "openvino")
    assert json.loads((out / "card.json").read_text("utf-8"))["model"]["digest"].startswith("sha256:")


HEADS: tuple[dict[str, Any], ...] = (
    {"head": "multilabel", "threshold": 0.3},
    {"head": "regression", "quantity": {"name": "red", "unit": "", "lowest": 0, "highest": 255}},
    {"head": "regression", "quantity": {"name": "red", "unit": ""}},
)


@pytest.mark.parametrize("head", HEADS, ids=["multilabel", "regression", "regression without limits"])
def test_a_card_says_what_the_numbers_mean(tmp_path: Path, head: dict[str, Any]) -> None:
    """Else a run on OpenVINO's server would take a softmax of them; golden images hold every head."""
    made = write_archive(tmp_path, **head)
    Image.new("RGB", (224, 224), (120, 60, 30)).save(tmp_path / "red.png")
    golden = golden_set(tmp_path / "unpacked", [tmp_path / "red.png"])
    beside = made.with_suffix(".golden.json")
    beside.write_text(json.dumps(golden))
    lay_out(made, tmp_path / "out", HANDLERS)
    card = json.loads((tmp_path / "out/solar-cells/card.json").read_text("utf-8"))
    assert card["head"] == head["head"]
    assert card.get("quantity") == head.get("quantity")
    assert len(card.get("thresholds", ())) == len(card["labels"])
    answer = golden["images"][0]
    if "score" in answer:
        answer["score"] += 2.0
    else:
        answer["probabilities"][3] -= 0.01
    beside.write_text(json.dumps(golden))
    with pytest.raises(DataError, match=r"golden image red\.png is"):
        lay_out(made, tmp_path / "out", HANDLERS)


def test_a_golden_image_that_the_archive_refuses(tmp_path: Path) -> None:
    """A score outside its range is no answer to hold a server to: left out when the file is made, an error in
    the file.
    """
    made = write_archive(
        tmp_path, head="regression", quantity={"name": "red", "unit": "", "lowest": 0, "highest": 150}
    )
    for name, red in (("dim", 120), ("bright", 250)):
        Image.new("RGB", (224, 224), (red, 60, 30)).save(tmp_path / f"{name}.png")
    dim, bright = tmp_path / "dim.png", tmp_path / "bright.png"
    golden = golden_set(tmp_path / "unpacked", [dim, bright])
    assert [image["name"] for image in golden["images"]] == ["dim.png"]
    with pytest.raises(DataError, match=r"refuses each of 1 images, bright\.png first"):
        golden_set(tmp_path / "unpacked", [bright])
    golden["images"][0]["b64"] = base64.b64encode(bright.read_bytes()).decode()
    made.with_suffix(".golden.json").write_text(json.dumps(golden))
    with pytest.raises(DataError, match=r"refuses the golden image dim\.png"):
        lay_out(made, tmp_path / "out", HANDLERS)


def test_the_verb_takes_any_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One without record and golden images is laid out too, and `--json` names what was written."""
    made = write_archive(tmp_path, features=False)
    paths = [f"paths.handlers='{HANDLERS}'"]
    assert main(["layout", f"--archive={made}", f"--folder={tmp_path / 'out'}", "--json", *paths]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], len(said["written"])) == ("solar-cells", 5)
    assert torch.get_num_threads() == 1
