"""The small model in all its forms, made once."""

from pathlib import Path

import pytest
import torch
from imagebatch_training.settings import Settings

from tests.training.imports.tiny import LABELS, Small, draw_images, export_onnx, probabilities, write_expected
from tests.training.imports.tiny import settings as made


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    draw_images(folder)
    return folder


@pytest.fixture(scope="session")
def small() -> Small:
    return Small().eval()


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory, small: Small) -> Path:
    return export_onnx(small, tmp_path_factory.mktemp("onnx") / "small.onnx")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, small: Small) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    torch.export.save(torch.export.export(small, (torch.zeros(1, 3, 32, 32),)), path)
    return path


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text("\n".join(LABELS) + "\n")
    return path


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, small: Small, images: Path) -> Path:
    """What the model's own code answers, by Pillow and torch alone."""
    files = sorted(images.iterdir())
    folder = tmp_path_factory.mktemp("expected")
    return write_expected(folder / "expected.csv", files, [probabilities(small, file) for file in files])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return made(tmp_path / "store")
