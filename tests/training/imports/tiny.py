"""A small model of six classes, images that it tells apart, and what its own code answers to them."""

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.imports.request import Request
from imagebatch_training.settings import Settings
from PIL import Image, ImageDraw
from torch import nn

from tests.training.shapes import REPOSITORY

CROP, RESIZE = 32, 40
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABELS = ("ant", "bee", "cat", "dog", "eel", "fox")
SAID = {"resize": RESIZE, "crop": CROP, "mean": MEAN, "std": STD}
Pixels = npt.NDArray[np.float32]


class Small(nn.Module):
    """Answers by colour and by place: swapped channels, other scales and other crops change its answers."""

    def __init__(self, *, softmax: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(48, len(LABELS))
        self.softmax = softmax
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(len(LABELS), 48, generator=generator) * 0.5)
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.pool(x).flatten(1))
        return logits.softmax(1) if self.softmax else logits


def draw_images(folder: Path, number: int = 24) -> list[Path]:
    """Draw colourful images of several sizes, PNG and JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)
    paths = []
    for index in range(number):
        wide, high = ((90, 60), (60, 90), (64, 64), (120, 48))[index % 4]
        picture = Image.fromarray(random.integers(0, 256, (3, 3, 3)).astype(np.uint8))
        picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        ImageDraw.Draw(picture).ellipse((wide // 4, high // 4, wide // 2, high - 9), fill=colour)
        paths.append(folder / f"image-{index:02}.{'jpg' if index % 2 else 'png'}")
        picture.save(paths[-1], quality=95)
    return paths


def textbook(picture: Image.Image) -> Pixels:
    """Preprocess by hand, with Pillow and numpy alone: (1, 3, crop, crop)."""
    wide, high = ((RESIZE * side) // min(picture.size) for side in picture.size)
    resized = picture.convert("RGB").resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - CROP) / 2), round((high - CROP) / 2)
    pixels = np.asarray(resized.crop((left, top, left + CROP, top + CROP)), np.float32) / 255
    scaled = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return scaled.transpose(2, 0, 1)[None].astype(np.float32)


def probabilities(
    model: nn.Module, path: Path, prepare: Callable[[Image.Image], Pixels] = textbook
) -> Pixels:
    """What the model's own code answers to one image, after a softmax."""
    with torch.inference_mode(), Image.open(path) as picture:
        found: Pixels = model(torch.from_numpy(prepare(picture))).softmax(1)[0].numpy()
    return found


def write_expected(path: Path, files: Sequence[Path], answers: Sequence[Pixels]) -> Path:
    """Write answers as a user's own script would: image, label and a column for each class."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "label", *LABELS])
    for file, row in zip(files, answers, strict=True):
        writer.writerow([file.name, LABELS[int(row.argmax())], *(f"{value:.6f}" for value in row)])
    path.write_text(text.getvalue())
    return path


def export_onnx(model: nn.Module, path: Path, shape: tuple[int, ...] = (1, 3, CROP, CROP)) -> Path:
    """Export as ONNX, weights inside."""
    example = (torch.zeros(shape),)
    torch.onnx.export(model.eval(), example, path, dynamo=True, verbose=False, external_data=False)
    return path


def save_script(model: nn.Module, path: Path) -> Path:
    """Write TorchScript, which torch warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, torch.zeros(1, 3, CROP, CROP)).save(path)
    return path


def settings(store: Path, *overrides: str) -> Settings:
    """Settings whose archives go to `store`."""
    handlers = f"paths.handlers='{REPOSITORY / 'handlers'}'"
    return load_settings(CONFIG_DIR, [f"paths.model_store='{store}'", handlers, *overrides])


def request(source: Path | str, **more: Any) -> Request:
    """A request with this model's preprocessing said by flags."""
    return Request(**{"source": str(source), "flags": SAID, **more})
