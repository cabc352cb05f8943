"""A network that ends early: the same numbers as the whole one has there, and nothing computed above."""

from pathlib import Path

import numpy as np
import pytest
import torch
from imagebatch_training.backbone.mobilenet import (
    Convention,
    CutNetwork,
    MobileNetV2,
    ServedModel,
    build,
    load_backbone,
    pool,
    read_cut,
)
from imagebatch_training.backbone.weights import write_weights
from imagebatch_training.cut import WHOLE, Cut
from imagebatch_training.export.graphs import load_served_model

CONVENTION = Convention(padding="tensorflow", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
MIDDLE = Cut(layer="14.expansion", pooling=("mean", "max", "std"))


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """Random weights, as `imagebatch-train weights` keeps them."""
    torch.manual_seed(0)
    state = {k: v for k, v in build("tensorflow", 2).state_dict().items() if not k.startswith("classifier.")}
    write_weights(tmp_path / "backbone.safetensors", state, CONVENTION, "random")
    return tmp_path / "backbone.safetensors"


@pytest.mark.parametrize(
    ("layer", "channels"), [("14.expansion", 576), ("14", 160), ("2.expansion", 96), ("18", 1280)]
)
def test_it_computes_what_the_whole_network_has_there(backbone: Path, layer: str, channels: int) -> None:
    """To the bit, whatever entry it ends at, and as many features as channels times statistics."""
    cut = Cut(layer=layer, pooling=("max", "mean"))
    network, _ = load_backbone(backbone, 3, cut)
    whole, _ = load_backbone(backbone, 3)
    assert isinstance(network, CutNetwork)
    assert isinstance(whole, MobileNetV2)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = whole.features[: cut.last](x)
        last = whole.features[cut.last]
        expected = last.conv[0](before) if "." in layer else last(before)
        features = pool(network.features(x), network.pooling)
    assert features.shape == (2, network.last_channel) == (2, 2 * channels)
    assert torch.equal(features, torch.cat([expected.amax((2, 3)), expected.mean((2, 3))], 1))
    assert len([name for name, _ in network.named_parameters()]) <= len([*whole.named_parameters()])


def test_statistics_are_those_of_numpy() -> None:
    """Also of a channel that is one value everywhere, whose deviation keeps a slope."""
    x = torch.randn(2, 5, 7, 6)
    x[:, 1] = 3.0
    found = pool(x, ("mean", "max", "std")).numpy()
    plain = x.numpy()
    expected = [plain.mean((2, 3)), plain.max((2, 3)), np.sqrt(plain.var((2, 3)) + 1e-6)]
    np.testing.assert_allclose(found, np.concatenate(expected, 1), atol=1e-5)


def test_a_served_file_says_where_its_network_ends(backbone: Path, tmp_path: Path) -> None:
    """So that archive and evaluation build the same one; a file of before says nothing, and is whole."""
    network, convention = load_backbone(backbone, 3, MIDDLE)
    path = tmp_path / "served.safetensors"
    write_weights(path, network.state_dict(), convention, "random", MIDDLE)
    assert read_cut(path) == MIDDLE
    assert read_cut(backbone) == WHOLE
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = ServedModel(network, convention).eval()(pixels)
        assert torch.allclose(load_served_model(path)(pixels), expected, atol=1e-6)


@pytest.mark.parametrize("layer", ["19", "1.expansion", "18.expansion", "14.squeeze", "-1", "", "fourteen"])
def test_a_layer_that_there_is_not(layer: str) -> None:
    """Named in the error, with those that there are."""
    with pytest.raises(ValueError, match=r"^layer must be 0 to 18, or 2\.expansion to 17\.expansion"):
        Cut(layer=layer)


@pytest.mark.parametrize("pooling", [(), ("mean", "mean"), ("median",)])
def test_statistics_that_there_are_not(pooling: tuple[str, ...]) -> None:
    """Likewise."""
    with pytest.raises(ValueError, match=r"^pooling must be some of mean, max, std"):
        Cut(pooling=pooling)
