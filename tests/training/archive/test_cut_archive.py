"""A model that ends in the middle of the network, from the configuration to the handler that serves it."""

import zipfile
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from imagebatch_engines import load_engine
from imagebatch_training.archive.archive import archive_paths, ensure_archive
from imagebatch_training.archive.loaded import load_archive
from imagebatch_training.configuration import CONTRASTS
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.export.graphs import load_served_model
from imagebatch_training.files import read_json
from imagebatch_training.fit.report import require_report
from imagebatch_training.fit.train import ensure_trained
from imagebatch_training.images.data import ensure_data
from imagebatch_training.settings import Settings, model_path

from tests.training.shapes import small_settings, write_random_weights

FEATURES = 3 * 576  # mean, max and deviation of block 14's widened channels


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Settings:
    """Settings after a finished training of such a model, and its archive."""
    settings = small_settings(
        tmp_path_factory.mktemp("cut"),
        shapes,
        "model.layer=14.expansion",
        "model.pooling=[mean,max,std]",
        "model.contrast=percentiles-1-99",
        "finetune.first_block=13",
        "probe.floor=0.05",
    )
    write_random_weights(settings)
    ensure_data(settings)
    ensure_trained(settings)
    ensure_archive(settings)
    return settings


def test_the_handler_serves_what_was_trained(cut: Settings, tmp_path: Path, shapes: Path) -> None:
    """Pixels, logits and features of both engines; what lies above the cut is in neither graph."""
    with zipfile.ZipFile(archive_paths(cut)[0]) as archive:
        archive.extractall(tmp_path)
    served, model = load_archive(tmp_path), load_served_model(model_path(cut))
    assert served.describe()["input"]["contrast"] == "percentiles-1-99"
    assert served.describe()["embedding"] == FEATURES
    pixels = served.decode((shapes / "striped/000.png").read_bytes())
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    with torch.inference_mode():
        expected = model(pixels[None])[0].numpy()
    for name in ("openvino", "torch"):
        engine = load_engine(name, tmp_path)
        np.testing.assert_allclose(engine.infer(pixels), expected, atol=1e-3)
        assert engine.features().shape == (FEATURES,)
    graph = ov.Core().read_model(tmp_path / "model.xml")
    convolutions = [node for node in graph.get_ordered_ops() if "Convolution" in node.get_type_name()]
    assert len(convolutions) == 40  # of the 52 of the whole network


def test_the_record_says_how_pixels_are_made(cut: Settings) -> None:
    """Beside the archive, for servers of other makers; the report is of the same training."""
    record = read_json(archive_paths(cut)[1])
    assert record is not None
    assert record["input"]["contrast"] == "percentiles-1-99"
    assert record["training"]["run_id"] == require_report(cut)["run_id"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.layer=20", "model.layer must be 0 to 18"),
        ("model.pooling=[median]", "model.pooling must be some of mean, max, std"),
        ("model.contrast=more", f"model.contrast must be {' or '.join(CONTRASTS)}"),
        ("finetune.first_block=15", "first_block must be between 1 and 14, where model.layer ends"),
        ("probe.floor=2", "probe.floor must be between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_one_line(override: str, message: str, shapes: Path, tmp_path: Path) -> None:
    """Before anything is computed."""
    with pytest.raises(ConfigurationError, match=message):
        small_settings(tmp_path, shapes, "model.layer=14", "finetune.first_block=13", override)


def test_contrasts_are_those_of_the_pixels() -> None:
    """The configuration is checked without torch, so it has a list of its own."""
    import imagebatch_pixels  # noqa: PLC0415 - a flat module of an archive

    assert CONTRASTS == imagebatch_pixels.CONTRASTS
