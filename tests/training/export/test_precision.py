"""Margins and fitted classifiers, from figures whose answers are known; and what they add to an archive."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from imagebatch_training.export.calibration import load_calibration
from imagebatch_training.export.cascade import fit_margin
from imagebatch_training.export.precision import add_precision
from imagebatch_training.export.quantise import quantise
from imagebatch_training.export.refit import compute, refit
from imagebatch_training.files import read_json
from imagebatch_training.images.data import require_data
from imagebatch_training.settings import Model, Release, Settings

from tests.training.export.tiny import write_tiny


def test_the_margin_is_the_smallest_that_agrees_often_enough() -> None:
    """Of ten images two differ, with gaps of 0.2 and 0.5: nine of ten need the first, ten of ten both."""
    gaps = np.array([0.2, 0.5, 0.1, 0.3, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4])
    cheap = np.stack([gaps, np.zeros(10)], axis=1)
    exact = cheap.copy()
    exact[:2] = exact[:2, ::-1]
    assert fit_margin(cheap, exact, 0.9)["margin"] == pytest.approx(0.2001)
    assert fit_margin(cheap, exact, 1.0) == {
        "margin": pytest.approx(0.5001),
        "agreement": 1.0,
        "images": 10,
        "repeated": 0.4,
    }
    assert fit_margin(cheap, exact, 0.8)["margin"] == 0.0


def test_a_fitted_classifier_takes_back_what_the_precision_moved() -> None:
    """Logits that are off by a linear function of the features come out right, also in folds not seen."""
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 12))
    wanted = random.normal(size=(300, 3)) * 3
    shift = features @ random.normal(size=(12, 3)) + np.array([1.0, -2.0, 0.5])
    fitted = refit(wanted - shift, features, wanted, np.arange(300) % 5)
    np.testing.assert_allclose(features @ fitted.weights + fitted.bias, shift, atol=0.3)
    np.testing.assert_allclose(fitted.held_out, wanted, atol=0.3)


def test_held_out_logits_do_not_see_their_own_fold() -> None:
    """Where there is nothing to learn, the fit looks better than it is: held-out figures do not."""
    random = np.random.default_rng(1)
    features, wanted = random.normal(size=(60, 50)), random.normal(size=(60, 3))
    fitted = refit(np.zeros((60, 3)), features, wanted, np.arange(60) % 5)
    seen = np.square(features @ fitted.weights + fitted.bias - wanted).mean()
    assert np.square(fitted.held_out - wanted).mean() > max(1.0, seen) * 0.95
    assert np.square(fitted.held_out - wanted).mean() > seen


def test_calibration_never_sees_a_test_image(trained: Settings) -> None:
    """Members are of training and validation blocks, ranges of training blocks, a block is in one fold."""
    labels = require_data(trained).labels
    calibration = load_calibration(trained, require_data(trained))
    splits = [labels.examples[i].block_split for i in calibration.members]
    assert set(splits) == {"train", "validation"}
    assert {labels.examples[i].block_split for i in calibration.statistics} == {"train"}
    folds: dict[int, set[int]] = {}
    for position, fold in zip(calibration.members, calibration.folds, strict=True):
        folds.setdefault(labels.examples[position].block, set()).add(int(fold))
    assert all(len(found) == 1 for found in folds.values())
    (image,) = calibration.images(calibration.members[:1])
    assert (image.shape, image.dtype) == ((1, 3, 64, 64), np.uint8)


def served_by(trained: Settings, engine: str, **release: float) -> Settings:
    return replace(
        trained,
        model=Model(**{**vars(trained.model), "engine": engine}),
        release=Release(**{"images": 8, **release}),  # type: ignore[arg-type]  # mypy sees one type for all
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the float32 graph of a tiny network."""
    folder = tmp_path_factory.mktemp("exported")
    write_tiny(folder / "model.xml", 64)
    return folder


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_float32_engines_need_nothing_more(trained: Settings, engine: str, tmp_path: Path) -> None:
    """No image is read and no file is written, not even where there is no graph."""
    add_precision(served_by(trained, engine), require_data(trained), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cascade_gets_a_graph_and_a_margin(trained: Settings, exported: Path, tmp_path: Path) -> None:
    """The margin is the smallest that keeps float32's class on as many calibration images as asked for."""
    data = require_data(trained)
    folder = shutil.copytree(exported, tmp_path / "archive")
    add_precision(served_by(trained, "openvino-int8-cascade", margin_agreement=1.0), data, folder)
    assert {file.name for file in folder.iterdir()} == {
        "model.xml",
        "model.bin",
        "int8.xml",
        "int8.bin",
        "cascade.json",
    }
    calibration = load_calibration(trained, data)
    margin = read_json(folder / "cascade.json")
    assert (margin["agreement"], margin["images"]) == (1.0, len(calibration.members))
    count = len(calibration.members)
    cheap, exact = (
        compute(ov.Core().read_model(folder / name), "f32", calibration.images(calibration.members), count)[0]
        for name in ("int8.xml", "model.xml")
    )
    ordered = np.sort(cheap, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] >= margin["margin"]
    assert (cheap.argmax(1) == exact.argmax(1))[sure].all()


def test_a_fitted_classifier_is_nearer_than_the_quantised_one(
    trained: Settings, exported: Path, tmp_path: Path
) -> None:
    """Without a cascade there is no margin; the logits lie nearer to float32's than before the fit."""
    data, calibration = require_data(trained), load_calibration(trained, require_data(trained))
    folder = shutil.copytree(exported, tmp_path / "archive")
    add_precision(served_by(trained, "openvino-int8"), data, folder)
    assert not (folder / "cascade.json").exists()
    chosen = load_calibration(served_by(trained, "openvino-int8"), data)
    graphs = [
        ov.Core().read_model(folder / "model.xml"),
        quantise(folder / "model.xml", chosen),
        ov.Core().read_model(folder / "int8.xml"),
    ]
    exact, before, after = (
        compute(graph, "f32", calibration.images(calibration.members), len(calibration.members))[0]
        for graph in graphs
    )
    assert np.square(after - exact).mean() < np.square(before - exact).mean()
