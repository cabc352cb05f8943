"""Parity certificates, from hand-made figures and from real archives, one of them really worse."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from imagebatch_engines import load_engine
from imagebatch_pixels import decode
from imagebatch_training.archive.archive import archive_paths, ensure_archive
from imagebatch_training.archive.parity import check_parity, compare, render, require_parity
from imagebatch_training.archive.reference import plain_pixels
from imagebatch_training.cli import main
from imagebatch_training.errors import DataError
from imagebatch_training.export import refit
from imagebatch_training.export.graphs import load_served_model
from imagebatch_training.files import read_json, sha256_file
from imagebatch_training.settings import Model, Paths, Release, Settings, model_path


def engine(settings: Settings, folder: Path, name: str, **release: Any) -> Settings:
    return replace(
        settings,
        paths=Paths(**{**vars(settings.paths), "model_store": str(folder)}),
        model=Model(**{**vars(settings.model), "engine": name}),
        release=Release(**{"images": 8, "agreement": 0.0, **release}),
    )


@pytest.fixture(scope="module")
def cascade(trained: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings after an archive of 8 bits with a cascade, its margin fitted so that all images agree."""
    settings = engine(
        trained, tmp_path_factory.mktemp("store"), "openvino-int8-cascade", margin_agreement=1.0
    )
    ensure_archive(settings)
    return settings


def unpacked(mar: Path, folder: Path) -> Path:
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(folder)
    return folder


def test_the_figures_are_the_ones_of_their_names() -> None:
    """Four images, one changes its class from right to wrong: every figure by hand."""
    wanted = np.array([[2.0, 0], [0, 2], [0.1, 0], [1, 0]])
    answers = np.array([[2.0, 0], [0, 2], [0, 0.1], [1, 0]])
    result = compare(wanted, answers, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert (result["images"], result["agreeing"], result["agreement"]) == (4, 3, 0.75)
    assert result["interval"] == pytest.approx([0.300642, 0.954413], abs=1e-5)
    moved = 2 * (1 / (1 + np.exp(-0.1)) - 0.5)
    assert result["probability_change"] == pytest.approx({"largest": moved, "mean": moved / 4}, abs=1e-6)
    assert result["accuracy"] == {
        "reference": 0.75,
        "archive": 0.5,
        "change": -0.25,
        "interval": [-0.5, 0.0],
        "blocks": 2,
    }
    assert "accuracy" not in compare(wanted, answers, np.full(4, -1), np.zeros(4, dtype=np.int64))


def test_below_the_threshold_is_refused_in_one_line() -> None:
    """One set below it is enough; at the threshold is released."""
    sets = [{"name": "a", "images": 200, "agreement": 0.995}, {"name": "b", "images": 200, "agreement": 0.99}]
    certificate = {"name": "cells", "threshold": {"agreement": 0.995}, "sets": sets}
    with pytest.raises(
        DataError, match=r"cells names float32 torch's class on 99\.00% of the 200 b, 99\.50%"
    ):
        require_parity(certificate)
    require_parity(certificate | {"sets": sets[:1]})


def test_the_reference_has_pixels_of_its_own(trained: Settings) -> None:
    """Pillow alone gives the served pixels to within one step of 255, by other code."""
    files = sorted(Path(trained.data.images).rglob("*.png"))[::5]
    for file in files:
        ours = decode(file.read_bytes(), resize=trained.model.resize, crop=trained.model.crop).numpy()
        plain = plain_pixels(file, trained)
        assert np.abs(ours.astype(int) - plain.astype(int)).max() <= 1


def test_a_cascade_travels_with_its_certificate(cascade: Settings, tmp_path: Path) -> None:
    """Quantised graph, margin and certificate are in the archive; record and description name them."""
    mar, record = archive_paths(cascade)
    assert mar.name == "shapes-int8-cascade.mar"
    folder = unpacked(mar, tmp_path)
    quantised = (folder / "int8.xml").read_text()
    assert "FakeQuantize" in quantised
    assert (folder / "int8.bin").stat().st_size < (folder / "model.bin").stat().st_size / 2
    certificate = read_json(folder / "parity.json")
    margin = read_json(folder / "cascade.json")["margin"]
    assert certificate["engine"]["cascade"] == {"first": "i8", "then": "f32", "margin": margin}
    assert certificate["graphs"]["int8.bin"] == sha256_file(folder / "int8.bin")
    assert certificate["reference"]["weights_sha256"] == sha256_file(model_path(cascade))
    assert [one["name"] for one in certificate["sets"]] == ["test images"]
    assert read_json(mar.with_suffix(".parity.json")) == certificate
    assert read_json(record)["parity"] == f"sha256:{sha256_file(folder / 'parity.json')}"
    assert render(certificate).startswith("shapes-int8-cascade: openvino-int8-cascade, i8, f32 where close\n")


def test_the_same_calibration_gives_the_same_cascade(cascade: Settings, tmp_path: Path) -> None:
    """Quantised, fitted and certified again, every byte of the archive is the same."""
    again = replace(cascade, paths=Paths(**{**vars(cascade.paths), "model_store": str(tmp_path)}))
    assert ensure_archive(again)["mar_sha256"] == sha256_file(archive_paths(cascade)[0])


def test_a_corrupted_margin_is_refused(
    cascade: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a cheap graph that is wrong everywhere: a wide margin saves it, a margin of nothing is exit 65."""
    folder = unpacked(archive_paths(cascade)[0], tmp_path / "archive")
    graph = ov.Core().read_model(folder / "int8.xml")
    last = [node for node in graph.get_ordered_ops() if node.get_type_name() == "Add"][-1]
    bias = last.input(1).get_source_output().get_node()
    wrong = ov.opset13.constant(bias.get_data() + np.float32([[0.0, 0.0, 90.0]]))
    last.input(1).replace_source_output(wrong.output(0))
    ov.save_model(graph, tmp_path / "int8.xml", compress_to_fp16=False)
    for name in ("int8.xml", "int8.bin"):
        shutil.move(tmp_path / name, folder / name)
    overrides = [f"paths.{name}='{value}'" for name, value in vars(cascade.paths).items()]
    overrides += ["data=image-folder", "data.name=shapes", f"data.images='{cascade.data.images}'"]
    overrides += ["data.block_size=3", "model.resize=72", "model.crop=64"]
    codes = {}
    for margin in (1e6, 0.0):
        (folder / "cascade.json").write_text(json.dumps({"margin": margin}))
        mar = Path(shutil.make_archive(str(tmp_path / "worse"), "zip", folder)).rename(tmp_path / "worse.mar")
        codes[margin] = main(["parity", "--archive", str(mar), *overrides])
        assert read_json(tmp_path / "worse.parity.json")["passed"] == (codes[margin] == 0)
    assert codes == {1e6: 0, 0.0: 65}
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("imagebatch-train: worse names float32 torch's")
    )


def test_a_refused_archive_leaves_none(
    trained: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 bits with a classifier that was fitted to nonsense: no archive, not even the one that stood there."""
    settings = engine(trained, tmp_path, "openvino-int8", agreement=0.9)
    mar, _ = archive_paths(settings)
    mar.write_bytes(b"an older release")
    honest = refit.refit

    def to_nonsense(logits: refit.Matrix, features: refit.Matrix, wanted: refit.Matrix, folds: Any) -> Any:
        return honest(logits, features, -wanted, folds)

    monkeypatch.setattr(refit, "refit", to_nonsense)
    with pytest.raises(DataError, match="it is not released"):
        ensure_archive(settings)
    assert not mar.exists()
    assert not read_json(mar.with_suffix(".parity.json"))["passed"]


def test_the_default_archive_is_certified_beside_it(trained: Settings, tmp_path: Path) -> None:
    """Float32 on the served pixels names float32 torch's class on every drawing."""
    settings = engine(trained, tmp_path, "openvino", agreement=1.0)
    ensure_archive(settings)
    certificate = check_parity(settings, archive_paths(settings)[0])
    assert certificate["passed"]
    assert certificate["engine"] == {"engine": "openvino", "precision": "f32"}


def test_onnx_runtime_answers_like_the_trained_model(trained: Settings, tmp_path: Path) -> None:
    """From the archive itself: the trained model's logits, and no path of this checkout in the file."""
    settings = engine(trained, tmp_path, "onnxruntime")
    ensure_archive(settings)
    folder = unpacked(archive_paths(settings)[0], tmp_path / "archive")
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = load_served_model(model_path(settings))(image[None])[0].numpy()
    onnx, exact = load_engine("onnxruntime", folder), load_engine("openvino", folder)
    np.testing.assert_allclose(onnx.infer(image), expected, atol=1e-3)
    exact.infer(image)
    np.testing.assert_allclose(onnx.features(), exact.features(), atol=1e-3)
    assert str(Path(__file__).parents[3]).encode() not in (folder / "model.onnx").read_bytes()
