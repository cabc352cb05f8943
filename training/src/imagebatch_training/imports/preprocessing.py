"""What is done to an image before the model, as it is declared: by a library, a YAML file, by flags."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from imagebatch_pixels import FIRST_PIXELS, Fit  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker

from imagebatch_training.errors import ConfigurationError
from imagebatch_training.imports.request import CHANNELS, CHOICES, HEAD_KEYS, NUMBERS

_PLANES: Final = 3
_NEEDED: Final = ("resize", "crop", "mean", "std")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an upright RGB picture to the model's input, and what its outputs are.

    Attributes:
        resize: Pixels of the side that `fit` says, before cropping.
        crop: Side of the square that the model sees, pixels.
        fit, interpolation, padding: How a picture becomes a square: `imagebatch_pixels.Fit`.
        mean: Subtracted per channel, in the model's order of channels, from pixels scaled to `pixel_range`.
        std: Divided by, per channel.
        pixel_range: `0-1` or `0-255`.
        channel_order: `rgb` or `bgr`.
        layout: `nchw` or `nhwc`.
        outputs: `logits`, `probabilities` where the model ends with a softmax or sigmoid; of a regression
            `score`.
        pixels: Version of the pixels: `1` decodes every file whole, as the model's own code does.
    """

    resize: int
    crop: int
    fit: str = "crop"
    interpolation: str = "bilinear"
    padding: str = "black"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_range: str = "0-1"
    channel_order: str = "rgb"
    layout: str = "nchw"
    outputs: str = "logits"
    pixels: str = FIRST_PIXELS

    @property
    def square(self) -> Fit:
        """How a picture becomes a square, as the archive declares it."""
        return Fit(fit=self.fit, interpolation=self.interpolation, padding=self.padding)


class Declared(NamedTuple):
    """Some of `Preprocessing`'s values, and who says so."""

    by: str
    values: Mapping[str, Any]


def settle(declared: Sequence[Declared]) -> tuple[Preprocessing, dict[str, str]]:
    """Put what is declared on top of each other, and check it.

    Args:
        declared: Later ones win.

    Returns:
        What holds, and by field who said so.

    Raises:
        ConfigurationError: Something is not said that must be, or is none of what there is.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys((field.name for field in fields(Preprocessing)), "default")
    for by, said in declared:
        checked = {name: _checked(name, value, by) for name, value in said.items()}
        values |= checked
        origins |= dict.fromkeys(checked, by)
    if "crop" in values and "resize" not in values and values.get("fit") in ("squash", "pad"):
        values["resize"], origins["resize"] = values["crop"], f"crop, as fit is {values['fit']}"
    missing = [f"--{name}" for name in _NEEDED if name not in values]
    if missing:
        raise ConfigurationError(
            f"nobody says how images are preprocessed: give {', '.join(missing)}, or --preprocessing "
            "imagenet or a YAML file, as in the code that the model was trained with"
        )
    settled = Preprocessing(**values)
    if settled.crop > settled.resize:
        raise ConfigurationError(
            f"crop {settled.crop} ({origins['crop']}) is larger than resize {settled.resize} "
            f"({origins['resize']})"
        )
    return settled, origins


def read_file(name: str, folder: Path) -> Declared:
    """Read a YAML file of preprocessing.

    Args:
        name: Its path, or the name of one in `folder`, without its suffix.
        folder: Of the shipped ones.

    Raises:
        ConfigurationError: There is none, or it is not one.
    """
    shipped = folder / f"{name}.yaml"
    path = shipped if set(name).isdisjoint("/\\.") and shipped.is_file() else Path(name)
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigurationError(
            f"--preprocessing {name}: {error.strerror}; a YAML file, or one of {known}"
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(said, dict):
        raise ConfigurationError(f"{path} must hold keys and values, such as crop: 224")
    return Declared(path.name, {str(key): value for key, value in said.items()})


def shown(value: Any) -> str:
    """Write a value as a flag takes it."""
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def _checked(name: str, value: Any, by: str) -> Any:
    """Return a value in its type.

    Raises:
        ConfigurationError: It is none of what there is.
    """
    if name in NUMBERS:
        if type(value) is not int or value < 1:
            raise ConfigurationError(f"{by}: {name} must be a whole number of pixels: got {value!r}")
        return value
    if name in CHANNELS:
        return _three(name, value, by)
    if name in CHOICES and str(value) not in CHOICES[name]:  # YAML's 2 is no text
        raise ConfigurationError(f"{by}: {name} must be {' or '.join(CHOICES[name])}: got {value!r}")
    if name == "padding":
        try:
            Fit(padding=str(value))
        except ValueError as error:
            raise ConfigurationError(f"{by}: {error}") from error
    elif name not in CHOICES:
        known = ", ".join([*(field.name for field in fields(Preprocessing)), *HEAD_KEYS])
        raise ConfigurationError(f"{by}: unknown key {name}: use {known}")
    return str(value)


def _three(name: str, value: Any, by: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list | tuple) else [value] * _PLANES
    good = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if not good or len(numbers) != _PLANES or (name == "std" and min(numbers) <= 0):
        above = " above 0" if name == "std" else ""
        raise ConfigurationError(f"{by}: {name} must be three numbers{above}: got {value!r}")
    return tuple(float(number) for number in numbers)
