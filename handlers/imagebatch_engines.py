"""Engines: what computes a model's logits. Each is one class, chosen by name in `model-config.yaml`.

An engine reads its files from the unpacked archive. Every model file holds the same graph: input uint8
(1, 3, height, width) RGB, normalisation inside, output float32 logits (1, classes).

A new engine is a subclass of `Engine` with a `name`; defining it registers it.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import openvino  # type: ignore[import-untyped]  # ships no type marker
import torch

Logits = npt.NDArray[np.float32]


class Engine(ABC):
    """Computes the logits of one image at a time on one thread. Not safe to share between threads.

    One image at a time because larger batches are slower per image on a CPU in float32, and because an answer
    must not depend on which other images happen to be in the request.

    Args:
        folder: The unpacked archive.

    Raises:
        FileNotFoundError: The archive lacks this engine's files.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    registered: ClassVar[dict[str, type["Engine"]]] = {}

    def __init_subclass__(cls) -> None:
        Engine.registered[cls.name] = cls

    def __init__(self, folder: Path) -> None:
        missing = [file for file in self.files if not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(f"engine {self.name} needs {', '.join(missing)} in the archive")
        self.load(folder)

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read the model's files from `folder`."""

    @abstractmethod
    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute logits.

        Args:
            pixels: uint8 tensor (3, height, width), RGB.

        Returns:
            float32 array (classes,), owned by the caller.
        """


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU: the fastest in full precision on x86."""

    name = "openvino"
    files = ("model.xml", "model.bin")

    def load(self, folder: Path) -> None:
        """Read `model.xml` and `model.bin` and compile them for one thread."""
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # CPUs with AMX would compute in bfloat16, other answers
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": "1",
            "ENABLE_CPU_PINNING": "NO",  # every worker would pin itself to the same first core
        }
        compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", options)
        self._request = compiled.create_infer_request()

    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute logits, see `Engine.infer`."""
        outputs = self._request.infer([pixels.unsqueeze(0).numpy()], share_inputs=True)
        return np.array(outputs[0][0], dtype=np.float32)


class TorchEngine(Engine):
    """PyTorch running the exported program: no second runtime, a third of OpenVINO's speed.

    Sets torch to one thread in the whole process.
    """

    name = "torch"
    files = ("model.pt2",)

    def load(self, folder: Path) -> None:
        """Read `model.pt2`, written by `torch.export.save`."""
        torch.set_num_threads(1)
        self._module = torch.export.load(folder / "model.pt2").module()

    @torch.inference_mode()
    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute logits, see `Engine.infer`."""
        logits: Logits = self._module(pixels.unsqueeze(0))[0].numpy()
        return logits


def load_engine(name: str, folder: str | Path) -> Engine:
    """Load the model in `folder` with the engine of that name.

    Raises:
        ValueError: There is no such engine.
        FileNotFoundError: The archive lacks the engine's files.
    """
    if name not in Engine.registered:
        raise ValueError(f"unknown engine {name!r}: choose one of {', '.join(sorted(Engine.registered))}")
    return Engine.registered[name](Path(folder))
