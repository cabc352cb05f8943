"""A model as its own library computes it, and as an OpenVINO graph: one class for each library."""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
import torch
from PIL import Image

from imagebatch_training.errors import DataError
from imagebatch_training.imports.preprocessing import Declared

Floats = npt.NDArray[np.float32]
Shape = tuple[int | None, ...]
Transform = Callable[[Image.Image], Floats]
"""An upright RGB picture to float32 (3, crop, crop): preprocessing as a library does it."""


log = logging.getLogger(__name__)


class Network(ABC):
    """A model of one input.

    Attributes:
        shape: Of its input, None where any number does; empty where it does not say.
        computes: Library and version that `predict` asks.
    """

    shape: Shape
    computes: str

    @abstractmethod
    def predict(self, given: Floats) -> list[Floats]:
        """Compute all outputs for one image, float32 in the model's own layout, with a batch of 1."""

    @abstractmethod
    def graph(self, shape: Sequence[int]) -> ov.Model:
        """Convert to OpenVINO.

        Args:
            shape: Of the input, with a batch of 1.

        Raises:
            DataError: It cannot be.
        """


@dataclass(kw_only=True)
class Source:
    """What a reader has found.

    Attributes:
        kind: Of `readers.READERS`.
        name: For the archive, if the user gives none.
        network: The model.
        sha256: Of what was read, by file name.
        declared: What the library says of preprocessing.
        transform: The library's own preprocessing, equal to `declared`.
        labels: Class names, and who says so.
        classes: Outputs, where the file's weights tell.
        published: Whether `transform` is what these very weights were published with.
        notes: What the user should know.
    """

    kind: str
    name: str
    network: Network
    sha256: Mapping[str, str]
    declared: Declared | None = None
    transform: Transform | None = None
    labels: tuple[tuple[str, ...], str] | None = None
    classes: int | None = None
    published: bool = False
    notes: list[str] = field(default_factory=list)


class TorchNetwork(Network):
    """A module, an exported program or TorchScript.

    Args:
        module: In evaluation mode.
        shape: Of its input, see `Network`.
        program: What it was read from, where that is an exported program.
        scripted: Whether it is TorchScript.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        shape: Shape = (None, 3, None, None),
        program: torch.export.ExportedProgram | None = None,
        *,
        scripted: bool = False,
    ) -> None:
        self._module, self._program, self._scripted = module, program, scripted
        self.shape = shape
        self.computes = f"torch {version('torch')}"

    def predict(self, given: Floats) -> list[Floats]:
        """Compute eagerly, see `Network.predict`."""
        with torch.inference_mode(), _quiet():
            try:
                answer = self._module(torch.from_numpy(given))
            except (RuntimeError, AssertionError, TypeError, ValueError) as error:
                raise DataError(
                    f"the model does not take an input of {given.shape}: {_line(error)}; is --crop right?"
                ) from error
        if isinstance(answer, Mapping):
            answer = tuple(answer.values())
        outputs = answer if isinstance(answer, tuple | list) else (answer,)
        return [output.to(torch.float32).numpy() for output in outputs if isinstance(output, torch.Tensor)]

    def graph(self, shape: Sequence[int]) -> ov.Model:
        """Convert the exported program; what torch cannot export, or OpenVINO not read, by tracing."""
        example = torch.zeros(tuple(shape))
        if self._program is not None:
            return _converted(self._program)
        if not self._scripted:
            try:
                with _quiet():
                    program = torch.export.export(self._module, (example,))  # type: ignore[arg-type]  # a module
                return _converted(program)
            except Exception as error:  # noqa: BLE001 - torch and OpenVINO raise of every kind; tracing is left
                log.info("traced, as it cannot be exported: %s", _line(error))
        return _converted(self._module, example_input=example)


class OnnxNetwork(Network):
    """An ONNX file, computed by ONNX Runtime.

    Args:
        path: Of the file; external weights lie beside it.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415 - no type marker; only for such a file

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that spin while they wait take the processor from whatever else there is.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        except Exception as error:
            raise DataError(
                f"{path.name} is no ONNX model that ONNX Runtime reads: {_line(error)}"
            ) from error
        inputs = self._session.get_inputs()
        _require_one(len(inputs), path)
        self._input = inputs[0].name
        self._dtype = _NUMPY.get(inputs[0].type)
        if self._dtype is None:
            raise DataError(f"{path.name}: its input is {inputs[0].type}: use float or uint8 pixels")
        self.shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape or ())
        self.computes = f"onnxruntime {version('onnxruntime')}"

    def predict(self, given: Floats) -> list[Floats]:
        """Compute with ONNX Runtime, see `Network.predict`."""
        try:
            outputs = self._session.run(None, {self._input: given.astype(self._dtype)})
        except Exception as error:
            raise DataError(
                f"the model does not take an input of {given.shape}: {_line(error)}; is --crop right?"
            ) from error
        return [np.asarray(output, dtype=np.float32) for output in outputs]

    def graph(self, shape: Sequence[int]) -> ov.Model:
        """Convert the file."""
        return _reshaped(_converted(self._path), shape)


class OpenVinoNetwork(Network):
    """An OpenVINO IR, computed by OpenVINO in float32.

    Args:
        path: Of the `.xml`; the `.bin` lies beside it.
    """

    def __init__(self, path: Path) -> None:
        if not path.with_suffix(".bin").is_file():
            raise DataError(f"no {path.with_suffix('.bin').name} beside {path.name}: it holds the weights")
        try:
            self._model = ov.Core().read_model(path)
        except RuntimeError as error:
            raise DataError(f"{path.name} is no OpenVINO model: {_line(error)}") from error
        _require_one(len(self._model.inputs), path)
        sizes = self._model.input(0).partial_shape
        known = [] if sizes.rank.is_dynamic else list(sizes)
        self.shape = tuple(None if size.is_dynamic else size.get_length() for size in known)
        self._path = path
        self._compiled: Any = None
        self._given: tuple[int, ...] = ()
        self.computes = f"openvino {version('openvino')}"

    def predict(self, given: Floats) -> list[Floats]:
        """Compute with OpenVINO, see `Network.predict`."""
        if self._given != given.shape:
            model = _reshaped(ov.Core().read_model(self._path), given.shape)
            self._compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            self._given = given.shape
        wanted = self._model.input(0).element_type.to_dtype()
        answers = self._compiled(given.astype(wanted))
        return [np.array(answers[output], dtype=np.float32) for output in self._compiled.outputs]

    def graph(self, shape: Sequence[int]) -> ov.Model:
        """Read it again, for this size."""
        return _reshaped(ov.Core().read_model(self._path), shape)


_NUMPY: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


def _require_one(inputs: int, path: Path) -> None:
    if inputs != 1:
        raise DataError(f"{path.name} takes {inputs} inputs: a classifier of images takes one")


def _converted(what: Any, **options: Any) -> ov.Model:
    try:
        with _quiet():
            return ov.convert_model(what, **options)
    except Exception as error:
        raise DataError(
            f"OpenVINO cannot convert this model: {_line(error)}; export it as ONNX and import that"
        ) from error


def _reshaped(model: ov.Model, shape: Sequence[int]) -> ov.Model:
    try:
        model.reshape(list(shape))
    except RuntimeError as error:
        raise DataError(f"the model does not take an input of {tuple(shape)}: {_line(error)}") from error
    return model


def _line(error: Exception) -> str:
    """Shorten an exception's text to its end, where conversions say what they lack, on one line."""
    return " ".join(str(error).split())[-200:]


class _quiet(warnings.catch_warnings):  # noqa: N801 - used as the context manager that it is
    """No warnings: tracing and TorchScript warn of being deprecated, and the import has a note of its own."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
