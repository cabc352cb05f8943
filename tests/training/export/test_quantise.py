"""Cheap graphs of a network of one convolution: computed, quantised, and given a fitted classifier."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.export.calibration import Calibration
from imagebatch_training.export.graphs import write_graph
from imagebatch_training.export.quantise import quantise
from imagebatch_training.export.refit import Matrix, Refit, compute, install

from tests.training.export.tiny import Tiny, some_images, write_tiny

SIDE = 16


@pytest.fixture(scope="module")
def images() -> Calibration:
    return some_images(40, SIDE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tiny]:
    path = tmp_path_factory.mktemp("tiny") / "model.xml"
    return path, write_tiny(path, SIDE)


@pytest.fixture(scope="module")
def cheap(tiny: tuple[Path, Tiny], images: Calibration) -> ov.Model:
    return quantise(tiny[0], images)


def answers(graph: ov.Model, images: Calibration) -> tuple[Matrix, Matrix]:
    return compute(graph, "f32", images.images(images.members), len(images.members))


def test_logits_and_features_are_those_of_torch(tiny: tuple[Path, Tiny], images: Calibration) -> None:
    """In the order of the images, though they are computed side by side; the graph itself stays as it is."""
    path, network = tiny
    graph = ov.Core().read_model(path)
    logits, features = answers(graph, images)
    with torch.inference_mode():
        wanted = [value.numpy() for value in network(torch.from_numpy(images.pixels))]
    np.testing.assert_allclose(logits, wanted[0], atol=1e-5)
    np.testing.assert_allclose(features, wanted[1], atol=1e-5)
    assert len(graph.outputs) == 2


def test_eight_bits_are_near_and_the_classifier_stays_exact(
    tiny: tuple[Path, Tiny], cheap: ov.Model, images: Calibration
) -> None:
    """The convolution is quantised and moves the logits by a few percent of their spread; MatMul is not."""
    kinds = [node.get_type_name() for node in cheap.get_ordered_ops()]
    assert "FakeQuantize" in kinds
    (product,) = [node for node in cheap.get_ordered_ops() if node.get_type_name() == "MatMul"]
    stored = product.input_value(1).get_node()
    assert stored.get_type_name() == "Constant"
    np.testing.assert_array_equal(stored.get_data(), tiny[1].classifier.weight.detach().numpy())
    exact, _ = answers(ov.Core().read_model(tiny[0]), images)
    logits, _ = answers(cheap, images)
    error = np.abs(logits - exact).max()
    assert 0 < error < 0.1 * (exact.max() - exact.min())


def test_quantising_twice_gives_the_same_file(
    tiny: tuple[Path, Tiny], cheap: ov.Model, images: Calibration, tmp_path: Path
) -> None:
    """An archive of 8 bits is as reproducible as the float32 one."""
    write_graph(cheap, tmp_path / "one.xml")
    write_graph(quantise(tiny[0], images), tmp_path / "two.xml")
    for suffix in (".xml", ".bin"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_only_the_chosen_images_set_the_ranges(
    tiny: tuple[Path, Tiny], cheap: ov.Model, images: Calibration, tmp_path: Path
) -> None:
    """Other pixels on an image outside `statistics` change no byte; on one inside they do."""

    def quantised(changed: int) -> bytes:
        pixels = images.pixels.copy()
        pixels[changed] = np.random.default_rng(1).choice(np.array([0, 255], dtype=np.uint8), pixels[0].shape)
        write_graph(quantise(tiny[0], replace(images, pixels=pixels)), tmp_path / "other.xml")
        return (tmp_path / "other.xml").read_bytes() + (tmp_path / "other.bin").read_bytes()

    write_graph(cheap, tmp_path / "one.xml")
    before = (tmp_path / "one.xml").read_bytes() + (tmp_path / "one.bin").read_bytes()
    assert quantised(int(images.statistics[0]) + 1) == before
    assert quantised(int(images.statistics[0])) != before


def test_an_installed_classifier_adds_what_was_fitted(cheap: ov.Model, images: Calibration) -> None:
    """The graph gives logits + features x weights + bias, whichever way round it stores its weights."""
    random = np.random.default_rng(4)
    fitted = Refit(weights=random.normal(size=(16, 3)), bias=random.normal(size=3), held_out=np.zeros((0, 3)))
    logits, features = answers(cheap, images)
    changed = cheap.clone()
    install(changed, fitted)
    after, _ = answers(changed, images)
    np.testing.assert_allclose(after, logits + features @ fitted.weights + fitted.bias, atol=1e-4)
    np.testing.assert_array_equal(answers(cheap, images)[0], logits)


def test_a_precision_that_this_cpu_lacks_is_refused(tiny: tuple[Path, Tiny], images: Calibration) -> None:
    """bfloat16 is computed where the CPU has it; elsewhere an archive of it would be judged on float32."""
    graph = ov.Core().read_model(tiny[0])
    there = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    arguments = graph, "bf16", images.images(images.members), len(images.members)
    if there:
        logits, _ = compute(*arguments)
        assert 0 < np.abs(logits - answers(graph, images)[0]).max() < 0.05
    else:
        with pytest.raises(ConfigurationError, match="this CPU does not compute in bf16"):
            compute(*arguments)


def test_a_grey_image_is_three_equal_channels() -> None:
    """Data sets that are all grey are kept with one channel; a graph is always asked with three."""
    grey = replace(
        some_images(3, SIDE), pixels=np.arange(3 * SIDE * SIDE, dtype=np.uint8).reshape(3, 1, SIDE, SIDE)
    )
    asked = list(grey.images(np.array([2, 0])))
    for image, position in zip(asked, (2, 0), strict=True):
        assert (image.shape, image.flags["C_CONTIGUOUS"]) == ((1, 3, SIDE, SIDE), True)
        for channel in range(3):
            np.testing.assert_array_equal(image[0, channel], grey.pixels[position, 0])
