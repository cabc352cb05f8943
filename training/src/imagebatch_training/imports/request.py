"""The verb's flags, and what they say. Imports nothing that costs time: `--help` shall be quick."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from imagebatch_training.errors import ConfigurationError

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "fit": ("crop", "squash", "pad"),
    "interpolation": ("bilinear", "bicubic"),
    "channel_order": ("rgb", "bgr"),
    "layout": ("nchw", "nhwc"),
    "pixel_range": ("0-1", "0-255"),
    "outputs": ("logits", "probabilities"),
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
    "outputs": "whether the model ends with a softmax (probabilities) or not (logits)",
}
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
        flags: Preprocessing as flags say it, above everything else.
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
        given = {name: getattr(arguments, name) for name in _HELP}
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
    add("--expect", type=Path, metavar="CSV", help="what your own code answers: image, label, probability")
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


def _channels(text: str) -> tuple[float, ...]:
    """Read three numbers with commas between them; one stands for three."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers with commas between") from error
    return numbers * 3 if len(numbers) == 1 else numbers
