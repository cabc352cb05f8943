"""The verb `train`, killed in the middle and called again; and two of them at the same time."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import exclusive, read_json
from imagebatch_training.fit.report import require_report
from imagebatch_training.fit.train import ensure_trained
from imagebatch_training.settings import Settings, cache_path, tracking_uri

from tests.training.shapes import REPOSITORY, small_overrides


def overrides(trained: Settings, folder: Path) -> list[str]:
    """The words of the finished training, but a folder of its own; from the activations that are there."""
    own = [f"paths.training='{folder}'", f"paths.cache='{cache_path(trained)}'"]
    return small_overrides(Path(trained.paths.training).parent, Path(trained.data.images), *own)


def killed_in_the_middle(words: list[str], folder: Path) -> str:
    """Run the command until a checkpoint is there, kill it alone, and wait until its workers are gone."""
    program = "import sys; from imagebatch_training.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "train", *words]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("checkpoint-*.pt")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=60)  # it ends when no process holds its standard error any more
    return said


def test_it_goes_on_in_the_same_run_to_the_same_weights(trained: Settings, tmp_path: Path) -> None:
    """kill -9 of the command: its workers end as well, and the next call ends with what one call makes."""
    words = overrides(trained, tmp_path / "killed")
    said = killed_in_the_middle(words, tmp_path / "killed")
    assert re.search(r"split, rate 0\.0001, epoch 1 of 1", said)
    begun = read_json(tmp_path / "killed" / "begun.json")
    settings = load_settings(CONFIG_DIR, words)
    ensure_trained(settings)
    report, whole = require_report(settings), require_report(trained)
    assert report["served"] == whole["served"]
    assert report["results"] == whole["results"]
    assert report["run_id"] == begun["run_id"] != whole["run_id"]
    run = mlflow.MlflowClient(tracking_uri(trained.tracking)).get_run(begun["run_id"])
    assert run.info.status == "FINISHED"
    left = sorted(file.name for file in (tmp_path / "killed").iterdir())
    assert left == [".lock", "report.json", "shapes.safetensors"]


def test_one_folder_has_one_training_at_a_time(trained: Settings, tmp_path: Path) -> None:
    """The second is told what to do, before it has written anything."""
    settings = load_settings(CONFIG_DIR, overrides(trained, tmp_path / "busy"))
    with exclusive(tmp_path / "busy" / ".lock") as alone:
        assert alone
        with pytest.raises(ConfigurationError, match=r"busy: wait for it, or give this one a model\.name"):
            ensure_trained(settings)
    assert [file.name for file in (tmp_path / "busy").iterdir()] == [".lock"]


def test_models_of_one_checkout_have_folders_of_their_own() -> None:
    """By their names, with a cache each."""
    one, two = (load_settings(CONFIG_DIR, [f"model.name={name}"]) for name in ("one", "two"))
    assert (one.paths.training, two.paths.training) == ("var/training/one", "var/training/two")
    assert cache_path(one) == Path("var/training/one/cache")
