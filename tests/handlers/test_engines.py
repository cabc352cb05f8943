"""Both engines on one real model."""

import shutil
from pathlib import Path

import imagebatch_engines
import numpy as np
import openvino
import pytest
import torch
from imagebatch_engines import Engine, OpenVinoEngine, load_engine


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    coarse = torch.randint(0, 256, (count, 3, 14, 14), dtype=torch.uint8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (224, 224), mode="bilinear", antialias=True)


def test_the_engines_agree(archive_folder: Path) -> None:
    """On 50 images OpenVINO and torch differ by less than 0.0001 in a logit, never in the first label."""
    openvino_engine, torch_engine = (load_engine(name, archive_folder) for name in ("openvino", "torch"))
    pairs = [(openvino_engine.infer(image), torch_engine.infer(image)) for image in images(50)]
    for one, other in pairs:
        assert one.shape == other.shape == (5,)
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-4)
        assert one.argmax() == other.argmax()
    assert np.ptp([one for one, _ in pairs], axis=0).max() > 0.1, (
        "the images must differ for this to say anything"
    )


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_an_answer_does_not_depend_on_the_one_before(name: str, archive_folder: Path) -> None:
    """The same image gives the same bytes again, and an earlier answer is not overwritten by a later one."""
    engine = load_engine(name, archive_folder)
    one, other = images(2)
    first = engine.infer(one)
    kept = first.copy()
    engine.infer(other)
    assert np.array_equal(first, kept)
    assert np.array_equal(engine.infer(one), kept)


def test_openvino_computes_in_float32(archive_folder: Path) -> None:
    """CPUs that could compute faster in bfloat16 are told not to, and one thread is all a worker takes."""
    engine = load_engine("openvino", archive_folder)
    assert isinstance(engine, OpenVinoEngine)
    compiled = engine._request.get_compiled_model()  # noqa: SLF001 - the setting has no other witness
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1


def test_torch_uses_one_thread(archive_folder: Path) -> None:
    """Loading the torch engine sets the process to one thread."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        load_engine("torch", archive_folder)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "file"), [("openvino", "model.bin"), ("torch", "model.pt2")])
def test_a_missing_file_is_named(name: str, file: str, archive_folder: Path, tmp_path: Path) -> None:
    """An archive without its engine's files says which one it lacks."""
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"engine {name} needs {file} in the archive"):
        load_engine(name, folder)


def test_an_unknown_engine_is_answered_with_the_known_ones(archive_folder: Path) -> None:
    """A typing error in model-config.yaml is told with the choices."""
    with pytest.raises(ValueError, match="unknown engine 'onnx': choose one of openvino, torch"):
        load_engine("onnx", archive_folder)


def test_an_engine_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defining a subclass is all it takes to be chosen by name."""
    monkeypatch.setattr(Engine, "registered", dict(Engine.registered))

    class Brightness(Engine):
        name = "brightness"
        files = ()

        def load(self, folder: Path) -> None:
            self.folder = folder

        def infer(self, pixels: torch.Tensor) -> imagebatch_engines.Logits:
            return np.array([pixels.float().mean()], dtype=np.float32)

    assert load_engine("brightness", tmp_path).infer(images(1)[0]).shape == (1,)
