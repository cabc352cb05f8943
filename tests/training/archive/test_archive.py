import base64
import json
import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from imagebatch_archive import MODULES, content_digest
from imagebatch_engines import load_engine
from imagebatch_model import Settings as HandlerSettings
from imagebatch_training.archive.archive import archive_paths, ensure_archive, golden_path
from imagebatch_training.archive.golden import IMAGES
from imagebatch_training.archive.mar import render_model_config
from imagebatch_training.archive.parity import check_parity
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.export.graphs import check_export, load_served_model
from imagebatch_training.files import read_json, sha256_file
from imagebatch_training.fit.report import require_report
from imagebatch_training.settings import Model, Paths, Settings, model_path


@pytest.fixture(scope="module")
def archived(trained: Settings) -> Settings:
    ensure_archive(trained)
    return trained


def elsewhere(settings: Settings, folder: Path) -> Settings:
    return replace(settings, paths=Paths(**{**settings.paths.__dict__, "model_store": str(folder)}))


def test_the_input_size_reaches_the_handler(trained: Settings) -> None:
    """model-config.yaml says the size that was trained; the template's text stays where nothing differs."""
    handlers = Path(trained.paths.handlers)
    assert "crop: 64" in render_model_config(handlers, trained.model)
    template = (handlers / "model-config.yaml").read_text()
    assert render_model_config(handlers, Model(name="x")) == template


def test_a_head_reaches_the_handler(trained: Settings, tmp_path: Path) -> None:
    """What an archive declares of another head is in its model-config.yaml, and the handler takes it."""
    sets = {"head": "multilabel", "thresholds": {"scratch": 0.3}}
    text = render_model_config(Path(trained.paths.handlers), trained.model, sets)
    settings = HandlerSettings.from_config(yaml.safe_load(text))
    assert (settings.head, settings.thresholds, settings.crop) == ("multilabel", {"scratch": 0.3}, 64)
    (tmp_path / "model-config.yaml").write_text(text)
    with zipfile.ZipFile(tmp_path / "sets.mar", "w") as archive:
        archive.write(tmp_path / "model-config.yaml", "model-config.yaml")
    with pytest.raises(ConfigurationError, match="has a multilabel head: only the classes of a softmax"):
        check_parity(trained, tmp_path / "sets.mar")


def test_the_same_training_gives_the_same_archive(archived: Settings, tmp_path: Path) -> None:
    """Exported and packed a second time, in another folder and time zone, every byte is the same."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Pacific/Auckland"
    try:
        again = ensure_archive(elsewhere(archived, tmp_path))
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
    assert again == ensure_archive(archived)
    assert sha256_file(tmp_path / "shapes.mar") == again["mar_sha256"]


def test_the_archive_holds_what_torchserve_needs(archived: Settings, tmp_path: Path) -> None:
    """Handler, its modules, graphs, labels and configuration, flat; the record's digest is the content's."""
    mar, record_path = archive_paths(archived)
    with zipfile.ZipFile(mar) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path)
    others = {"model.pt2", "model.xml", "model.bin", "model-config.yaml", "index_to_name.json"}
    assert names == {*MODULES, *others, "MAR-INF/MANIFEST.json"}
    manifest = json.loads((tmp_path / "MAR-INF/MANIFEST.json").read_text())
    assert manifest["model"]["modelName"] == "shapes"
    assert manifest["model"]["handler"] == "imagebatch_handler.py"
    assert manifest["model"]["modelVersion"] == "1.0"
    labels = json.loads((tmp_path / "index_to_name.json").read_text())
    assert labels == {"0": "bright", "1": "dark", "2": "striped"}
    record = json.loads(record_path.read_text())
    assert record["digest"] == content_digest(tmp_path)
    assert record["training"]["run_id"] == require_report(archived)["run_id"]
    assert len(record["accuracy"]) == 4


def test_both_engines_answer_like_the_trained_model(archived: Settings, tmp_path: Path) -> None:
    """From the archive itself: uint8 pixels in, float32 logits of the trained model out."""
    with zipfile.ZipFile(archive_paths(archived)[0]) as archive:
        archive.extractall(tmp_path)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = load_served_model(model_path(archived))(image[None])[0].numpy()
    for name in ("openvino", "torch"):
        logits = load_engine(name, tmp_path).infer(image)
        assert (logits.shape, logits.dtype) == ((3,), np.float32)
        np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_both_engines_give_the_trained_models_features(archived: Settings, tmp_path: Path) -> None:
    """The second output of the graphs is what the trained model's classifier sees of the image."""
    with zipfile.ZipFile(archive_paths(archived)[0]) as archive:
        archive.extractall(tmp_path)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    model = load_served_model(model_path(archived))
    seen: list[torch.Tensor] = []
    model.network.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        model(image[None])
    for name in ("openvino", "torch"):
        engine = load_engine(name, tmp_path)
        engine.infer(image)
        np.testing.assert_allclose(engine.features(), seen[0][0].numpy(), atol=1e-3)


def test_an_export_of_other_weights_is_refused(archived: Settings, tmp_path: Path) -> None:
    """The check before publishing does find a graph that is not the trained model's."""
    with zipfile.ZipFile(archive_paths(archived)[0]) as archive:
        archive.extractall(tmp_path)
    model = load_served_model(model_path(archived))
    with torch.no_grad():
        model.network.classifier[1].bias.add_(torch.tensor([0.01, 0.0, 0.0]))
    with pytest.raises(DataError, match="engine openvino differs from the trained model"):
        check_export(model, tmp_path, [torch.zeros((3, 64, 64), dtype=torch.uint8)])


def test_a_model_that_never_names_a_class_is_no_archive(archived: Settings, tmp_path: Path) -> None:
    """Unless somebody says so: such a table would look all right and lack one class."""
    folder = tmp_path / "training"
    shutil.copytree(archived.paths.training, folder)
    report = json.loads((folder / "report.json").read_text())
    for result in report["results"]:
        result["test"]["never_predicted"] = ["dark"]
    (folder / "report.json").write_text(json.dumps(report))
    settings = elsewhere(archived, tmp_path)
    settings = replace(settings, paths=replace(settings.paths, training=str(folder)))
    with pytest.raises(
        DataError, match=r"names dark on no test image: add images of it, or .*allow_unpredicted"
    ):
        ensure_archive(settings)
    assert not list(tmp_path.glob("*.mar"))
    ensure_archive(replace(settings, release=replace(settings.release, allow_unpredicted=True)))


def test_an_archive_that_is_current_is_not_made_again(archived: Settings) -> None:
    """The second call reads; a damaged archive is replaced."""
    mar, _ = archive_paths(archived)
    before = mar.stat().st_mtime_ns
    record = ensure_archive(archived)
    assert mar.stat().st_mtime_ns == before
    mar.write_bytes(mar.read_bytes()[:-1])
    assert ensure_archive(archived) == record
    assert sha256_file(mar) == record["mar_sha256"]
    assert not [file for file in mar.parent.iterdir() if file.name.startswith(".")]


def test_missing_handler_files_are_named(archived: Settings, tmp_path: Path) -> None:
    """A wrong folder is one line that names the setting."""
    paths = Paths(**{**archived.paths.__dict__, "handlers": str(tmp_path), "model_store": str(tmp_path)})
    with pytest.raises(ConfigurationError, match=r"correct paths\.handlers"):
        ensure_archive(replace(archived, paths=paths))


def test_golden_images_belong_to_the_archive(archived: Settings) -> None:
    """Eight images with answers, under the digest that the archive's own record states."""
    record = read_json(archive_paths(archived)[1])
    golden = read_json(golden_path(archived))
    assert golden["model_digest"] == record["digest"]
    assert 0 < len(golden["images"]) <= IMAGES
    for image in golden["images"]:
        assert base64.b64decode(image["b64"])
        assert sorted(image["labels"]) == sorted(record["labels"])
        assert image["probabilities"] == sorted(image["probabilities"], reverse=True)
    golden_path(archived).unlink()
    ensure_archive(archived)
    assert read_json(golden_path(archived)) == golden


def test_the_archive_names_no_path_of_this_machine(archived: Settings, tmp_path: Path) -> None:
    """Another checkout must give the same bytes: no member may say where this one lies."""
    checkout = str(Path(__file__).parents[3]).encode()
    with zipfile.ZipFile(archive_paths(archived)[0]) as archive:
        archive.extractall(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt2") as program:
        program.extractall(tmp_path / "program")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "model.pt2"]
    assert len(files) > 100
    assert [path.name for path in files if checkout in path.read_bytes()] == []


def test_the_archive_names_rooms_and_no_source_file(archived: Settings, tmp_path: Path) -> None:
    """The digest covers the names of traced classes: moving one within its room changes no byte."""
    with zipfile.ZipFile(archive_paths(archived)[0]) as archive:
        archive.extract("model.pt2", tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt2") as program:
        (member,) = [name for name in program.namelist() if name.endswith("models/model.json")]
        names = set(re.findall(rb"imagebatch_training[\w.]*", program.read(member)))
    assert names == {
        b"imagebatch_training.backbone.BottomRightConv2d",
        b"imagebatch_training.backbone.Normalise",
        b"imagebatch_training.export.WithFeatures",
    }


def test_an_archive_declares_below_which_certainty_a_person_should_look(
    archived: Settings, tmp_path: Path
) -> None:
    """The threshold of a stated accuracy is in archive, record and description; out of reach is one line."""
    store = elsewhere(archived, tmp_path)
    asked = replace(store, release=replace(store.release, review_accuracy=0.01))
    with pytest.raises(DataError, match="no 30 or more of the 6 validation images"):
        ensure_archive(asked)
    asked = replace(asked, release=replace(asked.release, review_images=5))
    record = ensure_archive(asked)
    validation = record["review_on_validation"]
    assert (record["review"], validation["coverage"]) == (0.001, 1.0)
    with zipfile.ZipFile(tmp_path / "shapes.mar") as archive:
        config = yaml.safe_load(archive.read("model-config.yaml"))
    assert HandlerSettings.from_config(config).review == 0.001
    assert "review" not in ensure_archive(archived)
    assert config["imagebatch"]["review"] == 0.001
