"""Engines: what computes a model's logits. Each is one class, chosen by name in `model-config.yaml`.

An engine reads its files from the unpacked archive. Every model file holds the same graph: input uint8
(1, 3, height, width) RGB, normalisation inside, output float32 logits (1, classes). A second output, where
there is one, is the image's features (1, n), from which the logits are computed: its embedding.

A new engine is a subclass of `Engine` with a `name`; defining it registers it. Only the engine that is chosen
imports its library.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Logits = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Engine(ABC):
    """Computes the logits of one image at a time on one thread. Not safe to share between threads.

    One image at a time because larger batches are slower per image on a CPU in float32 and bfloat16, and
    because an answer must not depend on which other images happen to be in the request.

    Args:
        folder: The unpacked archive.

    Raises:
        FileNotFoundError: The archive lacks this engine's files.
        ValueError: One of them says what cannot be.

    Attributes:
        precision: What the arithmetic really is on this machine: `f32`, `bf16` or `i8`.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    registered: ClassVar[dict[str, type[Engine]]] = {}
    precision: str = "f32"

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

    def features(self) -> Features | None:
        """Give the features of the image that `infer` was last called with.

        They come out of the same pass, so that asking for them costs a copy and changes no logit.

        Returns:
            float32 array (n,), owned by the caller; None where the engine's graph does not give any.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """Say what computes: the engine's name and its precision on this machine."""
        return {"engine": self.name, "precision": self.precision}


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU: the fastest in full precision on x86."""

    name = "openvino"
    files = ("model.xml", "model.bin")
    hint: ClassVar[str] = "f32"  # CPUs with AMX would compute in bfloat16, other answers

    def load(self, folder: Path) -> None:
        """Read the first of `files` and compile it for one thread."""
        import openvino  # type: ignore[import-untyped]  # noqa: PLC0415 - no type marker; only where it is chosen

        options = {
            "INFERENCE_PRECISION_HINT": self.hint,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": "1",
            "ENABLE_CPU_PINNING": "NO",  # every worker would pin itself to the same first core
        }
        compiled = openvino.Core().compile_model(folder / self.files[0], "CPU", options)
        self.precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self._gives_features = len(compiled.outputs) > 1
        self._request, self._tensor = compiled.create_infer_request(), openvino.Tensor
        self._pixels: Pixels | None = None

    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute logits, see `Engine.infer`."""
        given = pixels.unsqueeze(0).numpy()
        if self._pixels is None or self._pixels.shape != given.shape:
            self._pixels = np.empty(given.shape, np.uint8)
            self._request.set_input_tensor(self._tensor(self._pixels, shared_memory=True))
        # Copied into an input that stays bound: binding each image anew takes a tenth of a millisecond.
        np.copyto(self._pixels, given)
        self._request.infer(share_outputs=True)
        logits: Logits = self._request.get_output_tensor(0).data[0].copy()
        return logits

    def features(self) -> Features | None:
        """Give the features of the last image, see `Engine.features`."""
        if not self._gives_features:
            return None
        features: Features = self._request.get_output_tensor(1).data[0].copy()
        return features


class OpenVinoBf16Engine(OpenVinoEngine):
    """The graph in bfloat16, with a classifier that was fitted to what bfloat16 makes of the features.

    On a CPU without bfloat16 instructions OpenVINO computes it in float32; `precision` says so.
    """

    name = "openvino-bf16"
    files = ("bf16.xml", "bf16.bin")
    hint = "bf16"


class OpenVinoInt8Engine(OpenVinoEngine):
    """The graph quantised to 8 bits after training, with a classifier that was fitted to its features."""

    name = "openvino-int8"
    files = ("int8.xml", "int8.bin")

    def load(self, folder: Path) -> None:
        """Read the quantised graph; what is not quantised in it stays float32."""
        super().load(folder)
        self.precision = "i8"


class CascadeEngine(Engine):
    """A cheap precision for every image, and float32 again where the two best classes are close.

    Attributes:
        margin: Difference of the two largest logits of the cheap answer below which float32 decides. From
            `cascade.json`, where training fitted it.
        repeated: Images that float32 decided, since loading.
    """

    name = "openvino-int8-cascade"
    files = (*OpenVinoInt8Engine.files, *OpenVinoEngine.files, "cascade.json")
    cheap: ClassVar[type[OpenVinoEngine]] = OpenVinoInt8Engine

    def load(self, folder: Path) -> None:
        """Read both graphs and the margin."""
        self.margin = _read_margin(folder / "cascade.json")
        self.repeated = 0
        self._first, self._exact = self.cheap(folder), OpenVinoEngine(folder)
        self.precision = f"{self._first.precision}, {self._exact.precision} where close"

    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute logits, see `Engine.infer`."""
        logits = self._first.infer(pixels)
        second, best = np.partition(logits, -2)[-2:]
        if best - second >= self.margin:
            return logits
        self.repeated += 1
        return self._exact.infer(pixels)

    def features(self) -> Features | None:
        """Give those of the cheap precision, which sees every image, so that all vectors compare."""
        return self._first.features()

    def describe(self) -> dict[str, Any]:
        """Say what computes, with both precisions and the margin."""
        steps = {"first": self._first.precision, "then": self._exact.precision, "margin": self.margin}
        return super().describe() | {"cascade": steps}


class Bf16CascadeEngine(CascadeEngine):
    """The cascade with bfloat16 as its cheap precision."""

    name = "openvino-bf16-cascade"
    files = (*OpenVinoBf16Engine.files, *OpenVinoEngine.files, "cascade.json")
    cheap = OpenVinoBf16Engine


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime on the CPU: for machines where OpenVINO is not."""

    name = "onnxruntime"
    files = ("model.onnx",)

    def load(self, folder: Path) -> None:
        """Read `model.onnx` for one thread."""
        import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415 - no type marker; only where it is chosen

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors: it warns of hardware that it finds and does not need
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        self._session, self._input = session, session.get_inputs()[0].name

    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute logits, see `Engine.infer`."""
        self._outputs = self._session.run(None, {self._input: pixels.unsqueeze(0).numpy()})
        logits: Logits = self._outputs[0][0]
        return logits

    def features(self) -> Features | None:
        """Give the features of the last image, see `Engine.features`."""
        return self._outputs[1][0] if len(self._outputs) > 1 else None


class TorchEngine(Engine):
    """PyTorch running the exported program: no second runtime, a third of OpenVINO's speed.

    Sets torch to one thread in the whole process.
    """

    name = "torch"
    files = ("model.pt2",)

    def load(self, folder: Path) -> None:
        """Read `model.pt2`, written by `torch.export.save`."""
        import torch  # noqa: PLC0415 - only where it is chosen

        torch.set_num_threads(1)
        self._module = torch.export.load(folder / "model.pt2").module()
        self._quietly = torch.inference_mode

    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute logits, see `Engine.infer`."""
        with self._quietly():
            answer = self._module(pixels.unsqueeze(0))
        self._outputs = answer if isinstance(answer, tuple) else (answer,)
        logits: Logits = self._outputs[0][0].numpy()
        return logits

    def features(self) -> Features | None:
        """Give the features of the last image, see `Engine.features`."""
        return self._outputs[1][0].numpy() if len(self._outputs) > 1 else None


def load_engine(name: str, folder: str | Path) -> Engine:
    """Load the model in `folder` with the engine of that name.

    Raises:
        ValueError: There is no such engine, or its margin is none.
        FileNotFoundError: The archive lacks the engine's files.
    """
    if name not in Engine.registered:
        raise ValueError(f"unknown engine {name!r}: choose one of {', '.join(sorted(Engine.registered))}")
    return Engine.registered[name](Path(folder))


def _read_margin(path: Path) -> float:
    margin = json.loads(path.read_text(encoding="utf-8")).get("margin")
    if not isinstance(margin, int | float) or not math.isfinite(margin) or margin < 0:
        raise ValueError(f"{path.name}: margin must be a number of at least 0: got {margin!r}")
    return float(margin)
