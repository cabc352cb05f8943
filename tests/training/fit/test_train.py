import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from imagebatch_training.backbone.mobilenet import Convention, ServedModel, load_backbone
from imagebatch_training.backbone.weights import require_weights
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.export.graphs import load_served_model
from imagebatch_training.fit.activations import load_activations
from imagebatch_training.fit.assessment import Answers, Assessment
from imagebatch_training.fit.experiment import Experiment, Trained
from imagebatch_training.fit.probe import fit_probe
from imagebatch_training.fit.report import render_report, require_report
from imagebatch_training.fit.train import ensure_trained, find_report
from imagebatch_training.fit.trial import start_head
from imagebatch_training.fit.views import views
from imagebatch_training.images.data import require_data
from imagebatch_training.images.labels import Split
from imagebatch_training.images.pixels import load_pixels, pixels_key
from imagebatch_training.settings import Paths, Settings, model_path, tracking_uri


def elsewhere(settings: Settings, folder: Path) -> Settings:
    """The same settings with another folder for what training writes."""
    paths = Paths(**{**settings.paths.__dict__, "training": str(folder)})
    return replace(settings, paths=paths, tracking=replace(settings.tracking, details=False))


def test_all_four_results_are_there_with_their_intervals(trained: Settings) -> None:
    """Both methods on both splits: test images, interval, baseline, a bootstrap on the block split."""
    report = require_report(trained)
    rows = [(result["split"], result["method"]) for result in report["results"]]
    assert rows == [
        ("random", "linear-probe"),
        ("random", "fine-tune"),
        ("block", "linear-probe"),
        ("block", "fine-tune"),
    ]
    for result in report["results"]:
        test = result["test"]
        assert test["images"] == report["splits"][result["split"]]["test"]
        assert test["wilson"][0] <= test["accuracy"] <= test["wilson"][1]
        assert ("block_bootstrap" in test) == (result["split"] == "block")
        assert test["accuracy"] > test["majority"]


def test_the_smaller_validation_loss_of_the_block_split_is_served(trained: Settings) -> None:
    """The report is enough to see that the choice was kept, and says what it looked at.

    Of losses that are the same to a thousandth it is the more accurate one's, and then the first one's.
    """
    report = require_report(trained)
    block = {r["method"]: r["validation"] for r in report["results"] if r["split"] == "block"}
    least = min(each["log_loss"] for each in block.values())
    near = [name for name, each in block.items() if each["log_loss"] <= least + 1e-3]
    assert report["served"]["method"] == max(near, key=lambda name: block[name]["accuracy"])
    text = render_report(report)
    assert len(re.findall(r"^\| (?:random|block) ", text, re.MULTILINE)) == 4
    assert "the better of the two by log loss on the validation images of the block split" in text
    assert "test images chose nothing" in text


def outcome(
    method: str, *, loss: float, accuracy: float, split: Split = "block", right: float = 0.5
) -> Trained:
    """A network with these figures on validation (loss and share that is right) and on test images."""
    none = np.zeros(0, np.int64)
    assessment = Assessment(
        split=split,
        method=method,
        validation={"log_loss": loss, "accuracy": right},
        test={"accuracy": accuracy},
        chosen={},
        history=[],
    )
    answers = Answers(positions=none, targets=none, probabilities=np.zeros((0, 2), np.float32))
    return Trained(assessment=assessment, answers=answers, state={})


def test_test_images_do_not_choose_what_is_served() -> None:
    """The method that is better on the test blocks alone is not taken, nor one of the random split."""
    convention = Convention(padding="tensorflow", mean=(0.5,) * 3, std=(0.5,) * 3)
    trained = [
        outcome("random-best", loss=0.1, accuracy=0.99, split="random"),
        outcome("linear-probe", loss=0.4, accuracy=0.8),
        outcome("fine-tune", loss=0.5, accuracy=0.9),
    ]
    assert Experiment(convention=convention, trained=trained).served().assessment.method == "linear-probe"


@pytest.mark.parametrize(("loss", "served"), [(1.0986, "linear-probe"), (1.0966, "fine-tune")])
def test_of_two_that_are_sure_of_nothing_the_more_accurate_is_served(loss: float, served: str) -> None:
    """Their losses differ by nothing that means anything; where they do, the smaller one is served."""
    convention = Convention(padding="tensorflow", mean=(0.5,) * 3, std=(0.5,) * 3)
    trained = [
        outcome("linear-probe", loss=1.0987, accuracy=0.9, right=0.9),
        outcome("fine-tune", loss=loss, accuracy=0.3, right=0.3),
    ]
    assert Experiment(convention=convention, trained=trained).served().assessment.method == served


def test_the_served_weights_give_the_reported_accuracy(trained: Settings) -> None:
    """The whole graph, from uint8 pixels and without any cache, scores what the report says."""
    report, data = require_report(trained), require_data(trained)
    pixels = load_pixels(
        data, trained.model, pixels_key(data, trained.model), Path(trained.paths.training) / "cache"
    )
    test = data.labels.members("block", "test")
    model = load_served_model(model_path(trained))
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.repeat(pixels[test], 3, axis=1)))
    accuracy = float((logits.argmax(1).numpy() == data.labels.targets()[test]).mean())
    served = next(
        r for r in report["results"] if r["split"] == "block" and r["method"] == report["served"]["method"]
    )
    assert accuracy == pytest.approx(served["test"]["accuracy"])


def test_training_again_gives_the_same_weights(trained: Settings, tmp_path: Path) -> None:
    """Same seed, same machine: the same bytes, computed again from the images."""
    again = elsewhere(trained, tmp_path)
    report = ensure_trained(again)
    assert report["served"]["weights_sha256"] == require_report(trained)["served"]["weights_sha256"]
    assert report["run_id"] != require_report(trained)["run_id"]


def test_an_unchanged_training_is_not_repeated(trained: Settings) -> None:
    """A second call returns the first one's run; another seed would be another training."""
    before = model_path(trained).stat().st_mtime_ns
    assert ensure_trained(trained)["run_id"] == require_report(trained)["run_id"]
    assert model_path(trained).stat().st_mtime_ns == before


def test_weights_that_were_changed_are_not_reported(trained: Settings, tmp_path: Path) -> None:
    """A report never speaks of other weights than the ones beside it."""
    shutil.copytree(trained.paths.training, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    copy = elsewhere(trained, tmp_path / "copy")
    assert find_report(copy) is not None
    with model_path(copy).open("ab") as file:
        file.write(b"x")
    assert find_report(copy) is None
    with pytest.raises(ConfigurationError, match="run imagebatch-train train"):
        require_report(copy)


def test_everything_is_in_mlflow(trained: Settings) -> None:
    """Parameters, metrics, both splits, pictures, report and weights, one nested run per result."""
    client = mlflow.MlflowClient(tracking_uri(trained.tracking))
    run = client.get_run(require_report(trained)["run_id"])
    assert run.data.params["finetune.first_block"] == "17"
    assert run.data.params["data.seed"] == "0"
    assert run.data.metrics["block_test_images"] == require_report(trained)["splits"]["block"]["test"]
    names = [
        file.path for folder in ("data", "model") for file in client.list_artifacts(run.info.run_id, folder)
    ]
    assert names == ["data/labels.csv", "model/shapes.safetensors"]
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    children = client.search_runs([run.info.experiment_id], query)
    assert {child.info.run_name for child in children} == {
        f"{method}, {split} split"
        for method in ("linear-probe", "fine-tune")
        for split in ("random", "block")
    }
    for child in children:
        assert 0 <= child.data.metrics["test_wilson_low"] <= child.data.metrics["test_accuracy"]
        pictures = {"confusion.png", "reliability.png", "scores.png", "scores.json", "worst-mistakes.png"}
        assert pictures <= {file.path for file in client.list_artifacts(child.info.run_id)}
    assert "grad-cam.png" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_the_logged_model_answers_as_the_served_weights(
    trained: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by MLflow alone: the probabilities that the weights give, for one image or for many."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(trained.tracking))
    address = f"runs:/{require_report(trained)['run_id']}/served"
    loaded = mlflow.pyfunc.load_model(address)
    example = loaded.metadata.load_input_example(loaded.metadata.get_model_info().model_uri)
    assert example.dtype == np.uint8
    assert loaded.metadata.metadata["classes"] == ["bright", "dark", "striped"]
    (taken,) = loaded.metadata.signature.inputs.inputs
    assert (taken.type, taken.shape) == (np.dtype(np.uint8), (-1, 3, 64, 64))
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)
    model = load_served_model(model_path(trained))
    for some in (images, images[:1], example):
        with torch.inference_mode():
            expected = model(torch.from_numpy(some)).softmax(1).numpy()
        np.testing.assert_allclose(loaded.predict(some), expected, atol=1e-5)
    body = mlflow.models.convert_input_example_to_serving_input(example)
    with pytest.warns(FutureWarning, match="validate_serving_input"):  # it asks in this very process
        served = mlflow.models.validate_serving_input(address, body)
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_cached_activations_and_the_network_agree(trained: Settings, tmp_path: Path) -> None:
    """OpenVINO's activations through the head give torch's logits, for every view."""
    data = require_data(trained)
    network, convention = load_backbone(require_weights(trained).path, 3)
    pixels = load_pixels(data, trained.model, "key", tmp_path)[:4]
    activations, features = load_activations(
        pixels, network, convention, first=17, key="k", cache=tmp_path, augment=["exposure"]
    )
    targets = np.array([0, 1, 2, 0])
    probe = fit_probe(
        torch.from_numpy(features),
        targets,
        np.arange(4),
        np.arange(4),
        classes=3,
        probe=replace(trained.probe, penalties=[0.1]),
    )
    head = start_head(network, probe, trained.finetune)
    head.install(network, 1.0)
    served = ServedModel(network, convention).eval()
    seen = views(["exposure"])
    assert len(activations) == len(seen) == 6
    for number, view in enumerate(seen):
        images = torch.from_numpy(np.ascontiguousarray(np.repeat(view(pixels), 3, axis=1)))
        with torch.inference_mode():
            expected = served(images).numpy()
        np.testing.assert_allclose(head.compute_logits(activations[number]), expected, atol=2e-4)


def test_an_image_that_cannot_be_decoded_is_named(trained: Settings, tmp_path: Path) -> None:
    """Training stops with the file's name; it never learns from a grey rest."""
    data = require_data(trained)
    images = tmp_path / "images"
    shutil.copytree(data.images, images)
    (images / "dark/003.png").write_bytes((images / "dark/003.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"dark/003\.png: .*; remove it from the labels"):
        load_pixels(replace(data, images=images), trained.model, "key", tmp_path)
    (images / "dark/003.png").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        pixels_key(replace(data, images=images), trained.model)


def test_training_asks_for_weights_first() -> None:
    """The verb that is missing is named."""
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ConfigurationError, match="-train weights"):
        require_weights(Settings(paths=Paths(weights=folder)))
