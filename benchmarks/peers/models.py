"""The model as every peer is given it: eager torch as most write it, or our engine and our pixels.

Read from the environment, so that each server stays as short as its documentation shows it:
`PEER_KIND` (`eager` or `ours`), `PEER_MODEL` (our archive, unpacked; PYTHONPATH names it too, for
`ours`) and `PEER_WEIGHTS` (its weights).
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

TOP_K = 4
Answer = tuple[list[str], list[float]]  # labels and probabilities, most probable first


class Model(Protocol):
    """Files in, answers out."""

    def predict(self, files: Sequence[bytes]) -> list[Answer]:
        """Score image files, in order."""


class Eager:
    """torchvision's network, transforms and Pillow, one thread, as tutorials show."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        from torchvision import transforms  # noqa: PLC0415 - the environments with our engine alone lack it

        self._network, mean, std = load_network()
        self._labels = _labels()
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(mean=mean, std=std),
            ]
        )

    def predict(self, files: Sequence[bytes]) -> list[Answer]:
        """Score image files, in order, as one batch."""
        pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in files]
        return self.classify(torch.stack([self.transform(picture) for picture in pictures]))

    @torch.inference_mode()
    def classify(self, batch: torch.Tensor) -> list[Answer]:
        """Score transformed pixels (batch, 3, 224, 224)."""
        values, classes = torch.topk(self._network(batch).softmax(1), min(TOP_K, len(self._labels)))
        return [
            ([self._labels[index] for index in row], probabilities)
            for row, probabilities in zip(classes.tolist(), values.tolist(), strict=True)
        ]


class Ours:
    """The modules of our archive: OpenVINO, one image at a time, the pixels of training."""

    def __init__(self) -> None:
        import yaml  # noqa: PLC0415 - only where our archive is read
        from imagebatch_model import ImageModel, Settings  # noqa: PLC0415 - of the archive, on their path alone

        torch.set_num_threads(1)
        config = yaml.safe_load(Path(os.environ["PEER_MODEL"], "model-config.yaml").read_text("utf-8"))
        self._model = ImageModel(os.environ["PEER_MODEL"], Settings.from_config(config))

    def predict(self, files: Sequence[bytes]) -> list[Answer]:
        """Score image files, in order."""
        model = self._model
        found = [model.predict(model.infer(model.decode(content)), TOP_K) for content in files]
        return [(one.labels, one.probabilities) for one in found]

    def rows(self, files: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Score image files; a row of all classes for each."""
        return np.stack([self._row(self._model.decode(content)) for content in files])

    def rows_of_pixels(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Score pixels (images, 3, height, width) that the client has made; a row for each."""
        return np.stack([self._row(torch.from_numpy(np.array(pixels))) for pixels in batch])

    def _row(self, pixels: torch.Tensor) -> npt.NDArray[np.float32]:
        model = self._model
        found = model.predict(model.infer(pixels), len(model.labels))
        by_label = dict(zip(found.labels, found.probabilities, strict=True))
        return np.array([by_label[label] for label in model.labels], np.float32)


def open_model() -> Model:
    """Load the model that the environment asks for."""
    return Ours() if os.environ["PEER_KIND"] == "ours" else Eager()


def load_network() -> tuple[torch.nn.Module, list[float], list[float]]:
    """Load torchvision's MobileNetV2 with the archive's weights; give mean and deviation of its pixels."""
    from safetensors import safe_open  # noqa: PLC0415 - the environments with our engine alone lack both
    from torchvision.models import mobilenet_v2  # noqa: PLC0415 - the environments with our engine alone lack torchvision

    with safe_open(os.environ["PEER_WEIGHTS"], framework="pt") as file:
        convention: dict[str, Any] = json.loads(file.metadata()["imagebatch"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    network = mobilenet_v2(num_classes=len(state["classifier.1.bias"]))
    if convention["padding"] == "tensorflow":
        pad_as_tensorflow(network)
    network.load_state_dict(state, strict=True)
    return network.eval(), convention["mean"], convention["std"]


def pad_as_tensorflow(network: torch.nn.Module) -> None:
    """Pad the five stride-2 convolutions at the bottom and right, as the weights were trained."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2):
            module.padding = (0, 0)
            module.register_forward_pre_hook(_pad)


def _pad(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return torch.nn.functional.pad(inputs[0], (0, 1, 0, 1))


def unpack(body: bytes) -> list[bytes]:
    """Take a pack apart: each file behind its length in 4 bytes, big-endian. The cheapest form there is."""
    found, at = [], 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        found.append(body[at + 4 : end])
        at = end
    return found


def _labels() -> list[str]:
    names = json.loads(Path(os.environ["PEER_MODEL"], "index_to_name.json").read_text("utf-8"))
    return [names[str(index)] for index in range(len(names))]
