"""Weights into architectures, whatever a training script has called them; what does not fit is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from imagebatch_training.errors import ConfigurationError, DataError, DownloadError
from imagebatch_training.imports import architectures
from imagebatch_training.imports.architectures import find_architecture, read_published
from imagebatch_training.imports.preprocessing import settle
from imagebatch_training.imports.weights import read_weights
from safetensors.torch import save_file
from torch import nn

ARCH = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.shufflenet_v2_x0_5(num_classes=6).eval()


def answers(source: Any) -> torch.Tensor:
    return torch.from_numpy(source.network.predict(torch.ones(1, 3, 64, 64).numpy())[0])


WRAPPED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "Lightning": lambda state: {
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "epoch": 3,
    },
    "compiled in DataParallel": lambda state: {
        "model_state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()},
        "optimizer": {},
    },
    "model": lambda state: {"model": state, "class_to_idx": {f"c{i}": i for i in range(6)}},
    "half": lambda state: {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
    "dropout before the last": lambda state: {n.replace("fc.", "fc.1."): v for n, v in state.items()},
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_weights_are_found_whatever_they_are_called(wrapped: str, network: nn.Module, tmp_path: Path) -> None:
    """The number of classes is the last layer's, and the answers are the network's."""
    path = tmp_path / "weights.pth"
    torch.save(WRAPPED[wrapped](network.state_dict()), path)
    source = read_weights(path, ARCH)
    assert source.classes == 6
    with torch.inference_mode():
        wanted = network(torch.ones(1, 3, 64, 64))
    assert torch.allclose(answers(source), wanted, atol=0.05 if wrapped == "half" else 1e-5)
    assert (source.labels is not None) == (wrapped == "model")


def test_safetensors_are_read(network: nn.Module, tmp_path: Path) -> None:
    """The same tensors from the other kind of file."""
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    source = read_weights(tmp_path / "weights.safetensors", ARCH)
    with torch.inference_mode():
        assert torch.allclose(answers(source), network(torch.ones(1, 3, 64, 64)))


def test_a_pickled_model_is_refused(network: nn.Module, tmp_path: Path) -> None:
    """Nothing in it runs, and the line says how to save it instead."""
    torch.save(network, tmp_path / "model.pth")
    with pytest.raises(
        DataError, match=r"model.pth is a whole pickled model \(torchvision.*torch.save\(model.state_dict\(\)"
    ):
        read_weights(tmp_path / "model.pth", ARCH)
    torch.save({"state_dict": network.state_dict(), "config": Path("x")}, tmp_path / "objects.pth")
    with pytest.raises(DataError, match=r"holds Python objects beside tensors .*pathlib"):
        read_weights(tmp_path / "objects.pth", ARCH)


def test_what_does_not_fit_is_told(network: nn.Module, tmp_path: Path) -> None:
    """Keys that are missing, too many, or of another shape, a few of them by name."""
    path = tmp_path / "weights.pth"
    state = network.state_dict()
    torch.save({name: value for name, value in state.items() if name != "conv1.0.weight"}, path)
    with pytest.raises(DataError, match=r"1 are missing \(conv1.0.weight\): is --arch right\?"):
        read_weights(path, ARCH)
    torch.save(state, path)
    with pytest.raises(DataError, match="have other shapes"):
        read_weights(path, "torchvision:shufflenet_v2_x1_0")
    with pytest.raises(DataError, match=r"are missing .* are not of it"):
        read_weights(path, "torchvision:resnet18")
    torch.save(state | {"criterion.weight": torch.ones(6)}, path)
    source = read_weights(path, ARCH)
    assert source.notes == [f"1 tensors of weights.pth are not of {ARCH} and left out: criterion.weight"]
    with pytest.raises(ConfigurationError, match="name their architecture, --arch"):
        read_weights(path, None)


def test_an_unknown_architecture_names_what_is_near() -> None:
    """A library that is none, and a misspelt name in each."""
    with pytest.raises(ConfigurationError, match="say torchvision:NAME or timm:NAME"):
        find_architecture("keras:resnet50")
    with pytest.raises(ConfigurationError, match=r"near are .*resnet18"):
        find_architecture("torchvision:resnet-18")
    with pytest.raises(ConfigurationError, match=r"near are .*resnet18"):
        find_architecture("timm:resnet-18")
    with pytest.raises(
        ConfigurationError, match="has no weights 'V9' for resnet50: IMAGENET1K_V1, IMAGENET1K_V2"
    ):
        find_architecture("torchvision:resnet50@V9")


def test_a_library_declares_its_preprocessing() -> None:
    """torchvision by its weights, timm by its pretrained_cfg: sizes, filter and numbers."""
    first = find_architecture("torchvision:mobilenet_v2@IMAGENET1K_V1").declared
    second = find_architecture("torchvision:mobilenet_v2").declared
    vit = find_architecture("timm:test_vit").declared
    assert first
    assert second
    assert vit
    assert [settle([one])[0].resize for one in (first, second, vit)] == [256, 232, 168]
    settled, origins = settle([vit])
    assert (settled.crop, settled.interpolation, settled.mean) == (160, "bicubic", (0.5, 0.5, 0.5))
    assert origins["mean"] == "timm's pretrained_cfg of test_vit"


def test_timm_weights_are_read(tmp_path: Path) -> None:
    """An architecture of timm with another number of classes."""
    import timm  # noqa: PLC0415 - an extra

    network = timm.create_model("test_vit", num_classes=6).eval()
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    source = read_weights(tmp_path / "vit.safetensors", "timm:test_vit")
    given = torch.ones(1, 3, 160, 160)
    with torch.inference_mode():
        assert torch.allclose(
            torch.from_numpy(source.network.predict(given.numpy())[0]), network(given), atol=1e-5
        )
    assert source.classes == 6


def test_published_weights_are_read_from_where_torch_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the published name, of random weights: torchvision's labels and transforms come with it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    file = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.manual_seed(1)
    network = torchvision.models.shufflenet_v2_x0_5().eval()
    torch.save(network.state_dict(), file)
    source = read_published(ARCH)
    assert source.published
    assert source.labels
    assert source.labels[0][:2] == ("tench", "goldfish")
    assert source.name == "shufflenet_v2_x0_5"
    with torch.inference_mode():
        assert torch.allclose(answers(source), network(torch.ones(1, 3, 64, 64)))
    torch.save(network, file)
    with pytest.raises(DataError, match="is a whole pickled model"):
        read_published(ARCH)


def test_published_weights_that_cannot_be_fetched_say_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was tried, and the file that is looked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(architectures, "SECONDS", 0.001)
    with pytest.raises(DownloadError) as refused:
        read_published(ARCH)
    name = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url.rpartition("/")[2]
    assert f"put it to {tmp_path}/hub/checkpoints/{name}" in str(refused.value)
    assert "\n" not in str(refused.value)
