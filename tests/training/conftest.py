"""What many tests of the training start from: the drawn images, and one finished training on them."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from imagebatch_training.fit.train import ensure_trained
from imagebatch_training.images.data import ensure_data
from imagebatch_training.settings import Settings

from tests.training.shapes import draw_folder, small_settings, write_random_weights


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As training's own processes work: threads that wait for each other are slow where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_tracking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow puts the address that it is given into the environment, where it wins over any setting."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command logs to the stderr that it finds, which pytest closes after the test."""
    before = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = before


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("shapes") / "images")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Settings:
    """Settings after a finished training."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # of a test before: this fixture is older than a test's own
    settings = small_settings(tmp_path_factory.mktemp("trained"), shapes, "tracking.details=true")
    write_random_weights(settings)
    ensure_data(settings)
    ensure_trained(settings)
    return settings
