"""Every engine on one real model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import imagebatch_engines
import numpy as np
import openvino
import pytest
import torch
from imagebatch_engines import CascadeEngine, Engine, OpenVinoEngine, load_engine


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


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_features_are_those_that_the_logits_come_from(name: str, archive_folder: Path) -> None:
    """The second output belongs to the last image, and the graph's classifier turns it into its logits."""
    engine = load_engine(name, archive_folder)
    classifier = torch.export.load(archive_folder / "model.pt2").state_dict
    weight, bias = (classifier[f"classifier.{part}"].detach().numpy() for part in ("weight", "bias"))
    kept = []
    for image in images(3):
        logits, features = engine.infer(image), engine.features()
        assert features is not None
        assert (features.shape, features.dtype) == ((16,), np.float32)
        np.testing.assert_allclose((weight @ features + bias) * 8, logits, atol=1e-4)
        kept.append((features, features.copy()))
    assert all(np.array_equal(*pair) for pair in kept), "a later image must not overwrite earlier features"
    assert np.ptp([features for features, _ in kept], axis=0).max() > 0.01


def test_features_change_no_logit(archive_folder: Path, plain_folder: Path) -> None:
    """A graph with the second output answers with the same bytes as one without; that one has no features."""
    both, plain = load_engine("openvino", archive_folder), load_engine("openvino", plain_folder)
    for image in images(50):
        assert both.infer(image).tobytes() == plain.infer(image).tobytes()
    assert plain.features() is None


def test_a_cascade_gives_the_cheap_features_of_every_image(cheap_folder: Path) -> None:
    """Whichever precision decides, the vectors of all images are of one, so that they compare."""
    cheap = load_engine("openvino-int8", cheap_folder)
    (cheap_folder / "cascade.json").write_text('{"margin": 1000000.0}')
    cascade = load_engine("openvino-int8-cascade", cheap_folder)
    for image in images(3):
        cheap.infer(image)
        cascade.infer(image)
        np.testing.assert_array_equal(cascade.features(), cheap.features())


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
    with pytest.raises(ValueError, match="unknown engine 'onnx': choose one of onnxruntime, openvino, "):
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

    engine = load_engine("brightness", tmp_path)
    assert engine.infer(images(1)[0]).shape == (1,)
    assert engine.features() is None, "an engine without features need not say so"


@pytest.fixture
def cheap_folder(archive_folder: Path, tmp_path: Path) -> Path:
    """The archive with a coarser graph beside the exact one: weights rounded to a tenth of the largest."""
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    graph = openvino.Core().read_model(folder / "model.xml")
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Constant" and np.prod(node.get_output_shape(0)) > 50:
            step = np.abs(node.get_data()).max() / 10
            coarse = openvino.opset13.constant((node.get_data() / step).round() * step)
            for place in node.output(0).get_target_inputs():
                place.replace_source_output(coarse.output(0))
    openvino.save_model(graph, folder / "int8.xml", compress_to_fp16=False)
    openvino.save_model(
        openvino.Core().read_model(folder / "model.xml"), folder / "bf16.xml", compress_to_fp16=False
    )
    (folder / "cascade.json").write_text('{"margin": 0.1}')
    return folder


@pytest.mark.parametrize("share", [0, 10, 30, 40])
def test_a_cascade_decides_close_images_in_float32(share: int, cheap_folder: Path) -> None:
    """Each answer is the cheap one to the bit where its two best classes are apart, else the exact one."""
    cheap, exact = load_engine("openvino-int8", cheap_folder), load_engine("openvino", cheap_folder)
    answers = [(cheap.infer(image), exact.infer(image)) for image in images(40)]
    gaps = [float(best - second) for second, best in (np.sort(answer)[-2:] for answer, _ in answers)]
    margin = [*sorted(gaps), 1e6][share]  # so many of the gaps are below it
    (cheap_folder / "cascade.json").write_text(json.dumps({"margin": margin, "images": 40}))
    cascade = load_engine("openvino-int8-cascade", cheap_folder)
    assert isinstance(cascade, CascadeEngine)
    for image, gap, answer in zip(images(40), gaps, answers, strict=True):
        np.testing.assert_array_equal(cascade.infer(image), answer[gap < margin])
    assert cascade.repeated == share
    assert not any(np.array_equal(*answer) for answer in answers), (
        "the two must differ for this to say anything"
    )


@pytest.mark.parametrize("margin", [None, "0.1", -0.1, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin: object, cheap_folder: Path) -> None:
    """A cascade whose margin is missing or senseless does not load: it would pass for exact and not be."""
    (cheap_folder / "cascade.json").write_text(json.dumps({"margin": margin}))
    with pytest.raises(ValueError, match=r"cascade\.json: margin must be a number of at least 0"):
        load_engine("openvino-int8-cascade", cheap_folder)


def test_every_engine_says_what_computes(cheap_folder: Path) -> None:
    """Name, the precision that this machine really computes in, and a cascade's steps."""
    bf16 = load_engine("openvino-bf16", cheap_folder)
    cpu = Path("/proc/cpuinfo").read_text()
    assert bf16.describe() == {"engine": "openvino-bf16", "precision": "bf16" if "_bf16" in cpu else "f32"}
    assert load_engine("openvino", cheap_folder).describe() == {"engine": "openvino", "precision": "f32"}
    assert load_engine("openvino-int8-cascade", cheap_folder).describe() == {
        "engine": "openvino-int8-cascade",
        "precision": "i8, f32 where close",
        "cascade": {"first": "i8", "then": "f32", "margin": 0.1},
    }
    steps = load_engine("openvino-bf16-cascade", cheap_folder).describe()["cascade"]
    assert steps == {"first": bf16.precision, "then": "f32", "margin": 0.1}


def test_bfloat16_is_close_to_float32(cheap_folder: Path) -> None:
    """The same graph in bfloat16 gives nearly the same logits, and not the same ones where it is bfloat16."""
    exact, bf16 = load_engine("openvino", cheap_folder), load_engine("openvino-bf16", cheap_folder)
    pairs = [(exact.infer(image), bf16.infer(image)) for image in images(10)]
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=0.1)
    same = all(np.array_equal(one, other) for one, other in pairs)
    assert same == (bf16.precision == "f32")


def test_an_engine_loads_its_own_library_only(archive_folder: Path) -> None:
    """Importing the engines costs no framework: a process that serves OpenVINO never loads ONNX Runtime."""
    code = (
        "import sys, imagebatch_engines\n"
        "loaded = {'torch', 'openvino', 'onnxruntime'} & sys.modules.keys()\n"
        f"imagebatch_engines.load_engine('openvino', {str(archive_folder)!r})\n"
        "print(loaded, {'torch', 'onnxruntime'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() set()\n"
