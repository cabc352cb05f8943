"""What a training leaves in MLflow, read back by MLflow's own client from a database on disk."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit import tracking
from imagebatch_training.fit.assessment import Assessment
from imagebatch_training.images.labels import Example, Labels
from imagebatch_training.settings import Data, Settings, Tracking
from matplotlib.figure import Figure
from mlflow.entities import Run

CLASSES = ["crack (deep)", "a//b", "sound: ok"]
LABELS = Labels(
    examples=[
        Example(image_id=f"{i}.png", label=CLASSES[i % 3], block=i, random_split=part, block_split=part)
        for i, part in enumerate(["train"] * 4 + ["validation"] * 2 + ["test"] * 3)
    ],
    classes=CLASSES,
)
ASSESSMENT = Assessment(
    split="block",
    method="fine-tune",
    validation={"images": 2, "accuracy": 0.5},
    test={
        "images": 3,
        "accuracy": 0.75,
        "wilson": (0.5, 0.9),
        "classes": {
            name: {"images": 1, "precision": 0.5, "recall": 0.25 * i, "f1": 0.3}
            for i, name in enumerate(CLASSES)
        },
        "confusion": [[1, 0, 0], [0, 1, 0], [0, 1, 0]],
        "confidence": None,
    },
    chosen={"temperature": 1.25},
    history=[
        {"learning_rate": 1e-4, "epoch": 1, "train_loss": 0.9, "validation_loss": 0.8},
        {"learning_rate": 1e-4, "epoch": 2, "train_loss": 0.7, "validation_loss": 0.6},
    ],
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """A database in a folder that is not there yet."""
    folder = tmp_path_factory.mktemp("mlflow")
    return Tracking(
        uri=f"sqlite:///{folder}/new/mlflow.db", artifacts=f"{folder}/artifacts", experiment="cells"
    )


@pytest.fixture
def client(store: Tracking, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlflow.MlflowClient]:
    """The experiment of the store is the one that is written to; afterwards the one before."""
    before = mlflow.get_tracking_uri()
    tracking.open_experiment(store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow sets it, and it would win over what a test asks for
    yield mlflow.MlflowClient(store.uri)
    mlflow.set_tracking_uri(before)


def last(client: mlflow.MlflowClient, name: str) -> Run:
    experiment = client.get_experiment_by_name("cells")
    assert experiment is not None
    found: list[Run] = client.search_runs([experiment.experiment_id], f"run_name = '{name}'")
    return found[0]


def test_the_experiment_is_made_once_where_the_settings_say(
    store: Tracking, client: mlflow.MlflowClient
) -> None:
    """Database and folder are made; opened again it is the same experiment, and its artifacts lie in ours."""
    made = client.get_experiment_by_name("cells")
    tracking.open_experiment(store)
    again = client.get_experiment_by_name("cells")
    assert made is not None
    assert again is not None
    assert made.experiment_id == again.experiment_id
    assert made.artifact_location == Path(store.artifacts).as_uri()


def test_a_server_that_is_away_is_one_line_within_seconds(client: mlflow.MlflowClient) -> None:
    """It names the address and the variable to unset."""
    assert client
    with pytest.raises(
        ConfigurationError, match=r"127\.0\.0\.1:9 does not answer: start it or unset MLFLOW_"
    ):
        tracking.open_experiment(Tracking(uri="http://127.0.0.1:9", artifacts="", experiment="cells"))


def test_a_folder_that_cannot_be_made_names_its_setting(tmp_path: Path) -> None:
    """A file where the database's folder should be."""
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/file/below/mlflow.db"
    with pytest.raises(ConfigurationError, match=r"correct tracking\.uri"):
        tracking.open_experiment(Tracking(uri=uri, artifacts="", experiment="cells"))


def test_the_environment_wins_over_the_configuration(
    client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_TRACKING_URI is where the experiment is opened."""
    assert client
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    unused = Tracking(uri=f"sqlite:///{tmp_path}/unused.db", artifacts="", experiment="cells")
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:9"):
        tracking.open_experiment(unused)
    assert not list(tmp_path.iterdir())


def test_a_run_has_the_whole_configuration_and_its_end(client: mlflow.MlflowClient) -> None:
    """Every setting under its dotted name, the tags, and FINISHED."""
    settings = Settings(data=Data(name="cells", classes=["a", "b"]))
    with tracking.tracked_run("good", settings, {"weights_source": "torchvision"}) as run_id:
        pass
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["weights_source"] == "torchvision"
    assert run.data.params["data.classes"] == "['a', 'b']"
    assert run.data.params["finetune.first_block"] == "15"
    assert run.data.params["seed"] == "0"


def test_a_training_that_breaks_is_marked_failed(client: mlflow.MlflowClient) -> None:
    """Nobody takes half a training for one that ended well; the error itself goes on its way."""
    with pytest.raises(ZeroDivisionError), tracking.tracked_run("bad", Settings(), {}):
        raise ZeroDivisionError
    assert last(client, "bad").info.status == "FAILED"


def test_the_splits_are_kept_image_by_image(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    """labels.csv as an artifact, and how many images every part of both splits has."""
    (tmp_path / "labels.csv").write_text("image_id,label\n")
    with tracking.tracked_run("splits", Settings(), {}) as run_id:
        tracking.log_splits(LABELS, tmp_path / "labels.csv")
    metrics = client.get_run(run_id).data.metrics
    sizes = {"train": 4, "validation": 2, "test": 3}
    assert metrics == {f"{s}_{p}_images": n for s in ("random", "block") for p, n in sizes.items()}
    assert [file.path for file in client.list_artifacts(run_id, "data")] == ["data/labels.csv"]


def test_a_result_is_a_nested_run_whatever_its_classes_are_called(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    """Brackets and slashes in a class's name end no training; figures, steps and pictures are there."""
    with tracking.tracked_run("train", Settings(), {}) as run_id:
        tracking.log_assessment(ASSESSMENT, LABELS, {"further.png": Figure(figsize=(1, 1))})
    run = last(client, "fine-tune, block split")
    assert run.data.tags["mlflow.parentRunId"] == run_id
    assert run.data.params == {"split": "block", "method": "fine-tune", "temperature": "1.25"}
    figures = {"test_images": 3, "test_accuracy": 0.75, "test_wilson_low": 0.5, "test_wilson_high": 0.9}
    figures |= {"validation_images": 2, "validation_accuracy": 0.5}
    for i, name in enumerate(("crack__deep_", "a__b", "sound:_ok")):
        figures |= {f"test_classes_{name}_images": 1, f"test_classes_{name}_precision": 0.5}
        figures |= {f"test_classes_{name}_recall": 0.25 * i, f"test_classes_{name}_f1": 0.3}
    figures |= {"history_epoch": 2, "history_train_loss": 0.7}
    figures |= {"history_learning_rate": 1e-4, "history_validation_loss": 0.6}
    assert run.data.metrics == figures
    steps = client.get_metric_history(run.info.run_id, "history_train_loss")
    assert [(one.step, one.value) for one in steps] == [(1, 0.9), (2, 0.7)]
    names = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    assert names == [
        "assessment.json",
        "confusion.png",
        "further.png",
        "history.png",
        "scores.json",
        "scores.png",
    ]
    kept = json.loads(
        Path(client.download_artifacts(run.info.run_id, "assessment.json", str(tmp_path))).read_text()
    )
    assert list(kept["test"]["classes"]) == CLASSES
    table = json.loads(
        Path(client.download_artifacts(run.info.run_id, "scores.json", str(tmp_path))).read_text()
    )
    assert table["columns"] == ["class", "images", "precision", "recall", "f1"]
    assert table["data"][1] == ["a//b", 1, 0.5, 0.25, 0.3]


def test_a_probe_has_no_picture_of_epochs(client: mlflow.MlflowClient) -> None:
    """There is no history to draw: no empty sheet is kept."""
    with tracking.tracked_run("train", Settings(), {}):
        tracking.log_assessment(replace(ASSESSMENT, method="linear-probe", history=[]), LABELS)
    run = last(client, "linear-probe, block split")
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert "confusion.png" in names
    assert "history.png" not in names


def test_the_report_and_the_weights_are_on_the_run(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    """The headline accuracies under plain names, report.json, and the served file byte for byte."""
    weights = tmp_path / "cells.safetensors"
    weights.write_bytes(b"weights")
    row = {"split": "block", "method": "linear-probe", "test": {"accuracy": 0.8}}
    with tracking.tracked_run("result", Settings(), {}) as run_id:
        tracking.log_result({"results": [row]}, [weights])
    assert client.get_run(run_id).data.metrics == {"block_linear_probe_test_accuracy": 0.8}
    kept = Path(client.download_artifacts(run_id, "model/cells.safetensors", str(tmp_path / "back")))
    assert kept.read_bytes() == b"weights"
    assert [file.path for file in client.list_artifacts(run_id)] == ["model", "report.json"]


def test_a_training_goes_on_in_the_run_that_it_had_begun(client: mlflow.MlflowClient) -> None:
    """Where the run is still there; one that somebody has deleted, or another database's, is a new one."""
    with pytest.raises(ZeroDivisionError), tracking.tracked_run("first", Settings(), {}) as begun:
        raise ZeroDivisionError
    with tracking.tracked_run("first", Settings(seed=1), {}, begun) as again:
        assert again == begun
    run = client.get_run(begun)
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "0")
    client.delete_run(begun)
    for gone in (begun, "0" * 32):
        with tracking.tracked_run("first", Settings(), {}, gone) as another:
            assert another != gone
