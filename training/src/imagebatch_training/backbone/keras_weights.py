"""Keras's MobileNetV2 under torchvision's names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]  # ships no type marker
import numpy as np
import torch

# Keras divides by sqrt(variance + 1e-3), torchvision by sqrt(variance + 1e-5). The difference is moved into
# the stored variance, so that a model in evaluation mode (and frozen BatchNorm) computes the same.
KERAS_EPSILON = 1e-3
TORCH_EPSILON = 1e-5


def read_keras_backbone(path: Path) -> dict[str, torch.Tensor]:
    """Read the backbone of a Keras HDF5 file.

    Args:
        path: HDF5 file whose first layers are those of `keras.applications.MobileNetV2`.

    Returns:
        float32 tensors (int64 for BatchNorm's step counters) under the names of torchvision's `mobilenet_v2`,
        without `classifier.*`: convolutions (out, in/groups, height, width).

    Raises:
        KeyError: A layer is missing.
    """
    state: dict[str, torch.Tensor] = {}
    with h5py.File(path) as file:
        layers = file["model_weights"]
        for keras, torch_name, kernel in convolutions():
            weight = layers[keras][f"{keras}/{kernel}:0"][()]
            # Keras: (height, width, in, out), depthwise (height, width, channels, 1).
            order = (2, 3, 0, 1) if kernel == "depthwise_kernel" else (3, 2, 0, 1)
            state[f"{torch_name}.weight"] = _tensor(weight.transpose(order))
        for keras, torch_name in norms():
            state |= _read_norm(layers[keras], keras, torch_name)
    return state


def _read_norm(layer: Any, keras: str, name: str) -> dict[str, torch.Tensor]:
    variance = layer[f"{keras}/moving_variance:0"][()].astype(np.float64)
    return {
        f"{name}.weight": _tensor(layer[f"{keras}/gamma:0"][()]),
        f"{name}.bias": _tensor(layer[f"{keras}/beta:0"][()]),
        f"{name}.running_mean": _tensor(layer[f"{keras}/moving_mean:0"][()]),
        f"{name}.running_var": _tensor(variance + (KERAS_EPSILON - TORCH_EPSILON)),
        f"{name}.num_batches_tracked": torch.tensor(0),
    }


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _blocks() -> Iterator[tuple[str, str]]:
    """Yield Keras's prefix and torchvision's name of the 16 blocks that expand; the first does not."""
    for block in range(1, 17):
        yield f"block_{block}", f"features.{block + 1}.conv"


def convolutions() -> Iterator[tuple[str, str, str]]:
    """Yield Keras's name, torchvision's name and the kind of kernel of every convolution."""
    yield "Conv1", "features.0.0", "kernel"
    yield "expanded_conv_depthwise", "features.1.conv.0.0", "depthwise_kernel"
    yield "expanded_conv_project", "features.1.conv.1", "kernel"
    for keras, name in _blocks():
        yield f"{keras}_expand", f"{name}.0.0", "kernel"
        yield f"{keras}_depthwise", f"{name}.1.0", "depthwise_kernel"
        yield f"{keras}_project", f"{name}.2", "kernel"
    yield "Conv_1", "features.18.0", "kernel"


def norms() -> Iterator[tuple[str, str]]:
    """Yield Keras's and torchvision's name of every BatchNorm."""
    yield "bn_Conv1", "features.0.1"
    yield "expanded_conv_depthwise_BN", "features.1.conv.0.1"
    yield "expanded_conv_project_BN", "features.1.conv.2"
    for keras, name in _blocks():
        yield f"{keras}_expand_BN", f"{name}.0.1"
        yield f"{keras}_depthwise_BN", f"{name}.1.1"
        yield f"{keras}_project_BN", f"{name}.3"
    yield "Conv_1_bn", "features.18.1"
