"""The verb's flags, and what they say. Imports nothing that costs time: `--help` shall be quick."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from imagebatch_header import PIXELS_VERSIONS  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker

from imagebatch_training.errors import ConfigurationError

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "fit": ("crop", "squash", "pad"),
    "interpolation": ("bilinear", "bicubic"),
    "channel_order": ("rgb", "bgr"),
    "layout": ("nchw", "nhwc"),
    "pixel_range": ("0-1", "0-255"),
    "outputs": ("logits", "probabilities"),
    "pixels": PIXELS_VERSIONS,
}
"""What may be said of preprocessing and outputs where there are a few words for it."""

_HELP: Final = {
    "resize": "pixels of the shorter side before cropping; with fit squash of both, with pad of the longer",
    "crop": "side of the square that the model sees, pixels",
    "fit": "how a picture becomes a square",
    "interpolation": "how it is resized; both are antialiased",
    "padding": "colour that fit pad fills with: white, black, grey or #rrggbb",
    "mean": "subtracted from each channel after scaling to the pixel range, such as 0.485,0.456,0.406",
    "std": "divided by, after that",
    "channel_order": "of the model's input",
    "layout": "of the model's input: channels first or last",
    "pixel_range": "what pixels are scaled to before mean and std",
    "pixels": "2 decodes large JPEGs at a few eighths, faster and not quite as your own code, 1 whole",
    "outputs": "whether the model ends with a softmax or sigmoid (probabilities) or not (logits)",
}
_HEAD_HELP: Final = {
    "head": "softmax: one class of several; multilabel: any number of labels; regression: one number",
    "threshold": "of multilabel: probability from which on a label is one of an image's",
    "thresholds": "the same for single labels: scratch=0.3,dent=0.65, or a YAML file with a line for each",
    "quantity": "of regression, what it measures: name=thickness,unit=mm,lowest=0,highest=12.5",
}
HEAD_KEYS: Final = tuple(_HEAD_HELP)
HEAD_NAMES: Final = ("softmax", "multilabel", "regression")
NUMBERS: Final = ("resize", "crop")
CHANNELS: Final = ("mean", "std")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One import.

    Attributes:
        source: `torchvision:NAME[@WEIGHTS]`, or a file.
        name: Of the model on its server and of the archive; None: the source's.
        version: Of the model on its server.
        arch: For a file of weights alone: `torchvision:NAME` or `timm:NAME`.
        labels: File with the class names; None: the source's own, or those of the images' folders.
        preprocessing: YAML file, or the name of a shipped one; None: the source's own.
        flags: Preprocessing and head as flags say them, above everything else.
        output: Position of the output that holds the classes; None: there is one.
        images: Folder of images for the proof; a folder per class tells their classes too. None: drawn ones.
        most: Images that are looked at, evenly spread.
        expect: CSV of what the model's own code answers.
    """

    source: str
    name: str | None = None
    version: str = "1.0"
    arch: str | None = None
    labels: Path | None = None
    preprocessing: str | None = None
    flags: Mapping[str, Any]
    output: int | None = None
    images: Path | None = None
    most: int = 200
    expect: Path | None = None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """Take what `add_arguments` has put there.

        Raises:
            ConfigurationError: Flags do not go together.
        """
        if arguments.expect and not arguments.images:
            raise ConfigurationError(
                "--expect says what is answered to images: give their folder by --images"
            )
        if arguments.most_images < 1:
            raise ConfigurationError("--most-images must be at least 1")
        given = {name: getattr(arguments, name) for name in (*_HELP, *_HEAD_HELP)}
        return cls(
            source=arguments.source,
            name=arguments.name,
            version=arguments.model_version,
            arch=arguments.arch,
            labels=arguments.labels,
            preprocessing=arguments.preprocessing,
            flags={name: value for name, value in given.items() if value is not None},
            output=arguments.output,
            images=arguments.images,
            most=arguments.most_images,
            expect=arguments.expect,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="torchvision:NAME, or a file: weights, .onnx, .xml, .pt2, TorchScript",
    )
    add("--name", help="of the model and its archive (default: the source's)")
    add("--model-version", default="1.0", help="of the model on its server")
    add(
        "--arch",
        metavar="LIBRARY:NAME",
        help="architecture of weights: torchvision:resnet18, timm:vit_tiny_patch16_224",
    )
    add("--labels", type=Path, metavar="FILE", help="class names in order: text, JSON or CSV")
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="images for the proof; a folder per class tells their classes too",
    )
    add("--most-images", type=int, default=200, metavar="N", help="of them so many, evenly spread")
    add(
        "--expect", type=Path, metavar="CSV", help="what your own code answers: image; label, labels or score"
    )
    add("--output", type=int, metavar="N", help="position of the output with the classes, from 0")
    group = parser.add_argument_group("preprocessing", "what your own code does to an image before the model")
    group.add_argument(
        "--preprocessing", metavar="FILE", help="YAML with these keys, or imagenet or inception"
    )
    for name, text in _HELP.items():
        kind: Any = int if name in NUMBERS else _channels if name in CHANNELS else str
        meta = "N,N,N" if name in CHANNELS else None if name in CHOICES else name.upper()
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, type=kind, choices=CHOICES.get(name), metavar=meta, help=text)
    _add_head(
        parser.add_argument_group("head", "what the model's numbers mean; also keys of --preprocessing")
    )


def _add_head(group: argparse._ArgumentGroup) -> None:
    add, says = group.add_argument, _HEAD_HELP
    add("--head", choices=HEAD_NAMES, help=says["head"] + " (default: softmax)")
    add("--threshold", type=float, metavar="P", help=says["threshold"] + " (default: 0.5)")
    add("--thresholds", metavar="LABEL=P,…", type=_thresholds, help=says["thresholds"])
    add("--quantity", metavar="KEY=VALUE,…", type=_quantity, help=says["quantity"])


def _thresholds(text: str) -> Mapping[str, Any]:
    """Read labels and numbers from a flag, or from the file that it names."""
    if "=" in text and not text.endswith((".yaml", ".yml", ".json")):
        return {key: _number(value) for key, value in _pairs(text)}
    import yaml  # noqa: PLC0415 - only for a file

    try:
        said = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"{error.strerror}: give label=number,… or a YAML file"
        raise argparse.ArgumentTypeError(f"{text}: {reason}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no YAML: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(said, dict):
        raise argparse.ArgumentTypeError(f"{text} must hold labels and numbers, such as scratch: 0.3")
    return said


def _quantity(text: str) -> Mapping[str, Any]:
    """Read what a score is from a flag; one word is its name."""
    pairs = _pairs(text) if "=" in text else [("name", text)]
    return {key: _number(value) if key in ("lowest", "highest") else value for key, value in pairs}


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = [part.rpartition("=") for part in text.split(",")]
    if any(not key.strip() or not value.strip() for key, _, value in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value with commas between")
    keys = [key.strip() for key, _, _ in parts]
    twins = next((key for key in keys if keys.count(key) > 1), None)
    if twins is not None:
        raise argparse.ArgumentTypeError(f"{text!r} says {twins} twice")
    return [(key.strip(), value.strip()) for key, _, value in parts]


def _number(text: str) -> int | float:
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


def _channels(text: str) -> tuple[float, ...]:
    """Read three numbers with commas between them; one stands for three."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers with commas between") from error
    return numbers * 3 if len(numbers) == 1 else numbers
