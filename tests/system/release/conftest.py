"""A small data set of drawn shapes, and the settings of a training on it that takes seconds."""

from pathlib import Path

import pytest
import torch
from imagebatch_training.settings import Settings

from tests.training.shapes import REPOSITORY, draw_folder, small_settings, write_random_weights

# Few images are a poor sample of anything but of what goes quite wrong.
WIDE = (
    "release.calibration=0.9",
    "release.latency_ratio=20",
    "release.class_drop=0.5",
    "release.overall_drop=0.2",
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, and weights to start from."""
    folder = tmp_path_factory.mktemp("release")
    draw_folder(folder / "images", per_class=24)
    write_random_weights(settings_of(folder))
    return folder


def settings_of(folder: Path, *overrides: str) -> Settings:
    """Settings of a release of these images."""
    quick = ("data.block_size=6", "finetune.epochs=2")
    return small_settings(folder, folder / "images", *quick, *WIDE, *overrides)


def words(root: Path) -> list[str]:
    """The same as a person would type them."""
    paths = [f"paths.{name}='{root / name}'" for name in ("weights", "data", "training", "model_store")]
    quick = ["model.resize=72", "model.crop=64", "finetune.first_block=17", "finetune.epochs=2"]
    quick += ["finetune.batch_size=8", "finetune.learning_rates=[1e-4]", "probe.penalties=[0.01,0.1]"]
    quick += [f"tracking.uri='sqlite:///{root}/mlflow.db'", f"tracking.artifacts='{root}/artifacts'"]
    data = ["data=image-folder", "data.name=shapes", f"data.images='{root / 'images'}'", "data.block_size=6"]
    return [*paths, *quick, *data, f"paths.handlers='{REPOSITORY / 'handlers'}'", *WIDE]
