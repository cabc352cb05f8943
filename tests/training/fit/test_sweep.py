"""The verb `sweep` on drawn images: a training per combination, in folders of their own, ranked."""

import json
from pathlib import Path

import mlflow
import pytest
from imagebatch_training.cli import main
from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.fit.report import require_report
from imagebatch_training.fit.sweep import plan, render_sweep
from imagebatch_training.fit.train import find_report
from imagebatch_training.settings import Settings, cache_path, tracking_uri
from imagebatch_training.sweeps import Point, expand

from tests.training.shapes import small_overrides


def words(trained: Settings, folder: Path) -> list[str]:
    own = [f"paths.training='{folder}'", f"paths.cache='{cache_path(trained)}'"]
    return small_overrides(Path(trained.paths.training).parent, Path(trained.data.images), *own)


def test_a_training_for_every_combination_and_a_table_of_all(
    trained: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two penalties: of the one that allows nothing the log loss is that of guessing, and it comes last."""
    several = "probe.penalties=[1e4],[0.01]"
    assert main(["sweep", "--json", *words(trained, tmp_path), several]) == 0
    summary = json.loads(capsys.readouterr().out)
    first, last = summary["points"]
    assert (first["chosen"], last["chosen"]) == (["probe.penalties=[0.01]"], ["probe.penalties=[10000.0]"])
    assert first["validation"]["accuracy"] >= last["validation"]["accuracy"]
    client = mlflow.MlflowClient(tracking_uri(trained.tracking))
    for point in summary["points"]:
        run = client.get_run(point["run_id"])
        assert run.data.tags["mlflow.parentRunId"] == summary["run_id"]
        assert (Path(point["folder"]) / "report.json").is_file()
    names = {file.path for file in client.list_artifacts(summary["run_id"])}
    assert {"sweep.json", "sweep.md"} <= names
    assert require_report(trained)["run_id"] not in {point["run_id"] for point in summary["points"]}
    assert find_report(load_settings(CONFIG_DIR, words(trained, tmp_path))) is None

    assert main(["train", "--multirun", "--json", *words(trained, tmp_path), several]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["points"] == summary["points"]  # nothing is trained twice


def test_a_value_that_is_refused_ends_it_before_the_first_training(
    trained: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second of two values is out of range: 78, one line, no folder."""
    assert main(["sweep", *words(trained, tmp_path / "none"), "finetune.dropout=0.1,often"]) == 78
    assert "often" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_test_images_rank_nothing() -> None:
    """The table has no figure of theirs, and says so."""
    point = {
        "chosen": ["a=1", "b='x|y'"],
        "method": "fine-tune",
        "validation": {"accuracy": 0.9, "log_loss": 0.3},
        "folder": "there",
        "run_id": "r",
    }
    text = render_sweep({"run_id": "r", "points": [point]})
    assert "| 1 | a=1 b='x\\|y' | fine-tune | 0.900 | 0.300 | there |" in text
    assert "test images choose no settings" in text


def test_folders_are_named_after_what_was_chosen() -> None:
    """Whatever the values are called, they stay below the training's folder, and two never share one."""
    settings = load_settings(CONFIG_DIR, [])
    made = [plan(point, settings) for point in expand(["data.name='../../a','a b','a_b'"])]
    folders = [Path(job.settings.paths.training) for job in made]
    assert {folder.parent for folder in folders} == {Path("var/training/solar-cells/sweep")}
    assert len({folder.name for folder in folders}) == 3
    long = plan(Point(overrides=[], chosen=["a=" + "x" * 500]), settings)
    assert len(Path(long.settings.paths.training).name) < 100
    assert long.settings.paths.cache == "var/training/solar-cells/cache"
