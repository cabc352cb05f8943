"""An unpacked archive as a model: bytes of an image in; labels and probabilities, or a score, out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, get_origin

import torch
from imagebatch_archive import PARITY, content_digest, file_digest
from imagebatch_engines import CascadeEngine, Engine, Features, Logits, load_engine
from imagebatch_header import MOST_PIXELS, ImageError
from imagebatch_heads import Declared, Predicted, SoftmaxHead, make_head
from imagebatch_pixels import FIRST_PIXELS, PIXELS_VERSIONS, Fit, View, decode

_PAIR = 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The section `imagebatch` of `model-config.yaml`.

    Attributes:
        engine: Name of an engine of `imagebatch_engines`.
        resize: Shorter side before cropping, pixels, as in training.
        crop: Side of the square that the model sees, pixels, as in training.
        top_k: Labels per image where a request does not say.
        max_images: Most images in one request.
        max_pixels: Largest width x height of an image.
        pixels: Version of the pixels that the model was trained on: `imagebatch_pixels.PIXELS_VERSIONS`. An
            archive that does not say it is from before there was a second.
        value_range, background, page, end_marker: What the model sees of files that can be seen in more than
            one way: `imagebatch_header.View`.
        head: What the model's numbers mean: a head of `imagebatch_heads`.
        threshold, thresholds, quantity: What there is to say about it: `imagebatch_heads.Declared`.
        fit, interpolation, padding, contrast: How a picture becomes a square: `imagebatch_pixels.Fit`.
        review: How sure the model must be of an answer, 0 to 1, or a person should look; 0: nothing is said.
    """

    engine: str = "openvino"
    resize: int = 256
    crop: int = 224
    top_k: int = 4
    max_images: int = 1024
    max_pixels: int = MOST_PIXELS
    pixels: str = FIRST_PIXELS
    value_range: str = "full"
    background: str = "white"
    page: int = 1
    end_marker: str = "strict"
    head: str = SoftmaxHead.name
    threshold: float = 0.5
    thresholds: dict[str, Any] = field(default_factory=dict)
    quantity: dict[str, Any] = field(default_factory=dict)
    fit: str = "crop"
    interpolation: str = "bilinear"
    padding: str = "black"
    contrast: str = "as-is"
    review: float = 0.0

    @property
    def declared(self) -> Declared:
        """What is said about the head."""
        return Declared(threshold=self.threshold, thresholds=self.thresholds, quantity=self.quantity)

    @property
    def square(self) -> Fit:
        """What the model declares of how a picture becomes a square.

        Raises:
            ValueError: A value is none of those that there are.
        """
        said = {field.name: getattr(self, field.name) for field in fields(Fit)}
        return Fit(**said)

    @property
    def view(self) -> View:
        """What the model declares of how files are seen.

        Raises:
            ValueError: A value is none of those that there are.
        """
        return View(
            value_range=self.value_range,
            background=self.background,
            page=self.page,
            end_marker=self.end_marker,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read and check the section `imagebatch` of a parsed `model-config.yaml`; without it, the defaults.

        Raises:
            ValueError: A key is unknown, or a value has the wrong type or range.
        """
        section = config.get("imagebatch") or {}
        types = {field.name: get_origin(field.type) or field.type for field in fields(cls)}
        for key, value in section.items():
            if key not in types:
                raise ValueError(f"model-config.yaml: unknown key imagebatch.{key}: use {', '.join(types)}")
            if type(value) is not types[key]:
                raise ValueError(f"model-config.yaml: imagebatch.{key} must be {types[key]}: got {value!r}")
            if isinstance(value, int) and value < 1:
                raise ValueError(f"model-config.yaml: imagebatch.{key} must be at least 1: got {value}")
        settings = cls(**section)
        try:
            _ = settings.view, settings.square
        except ValueError as error:
            raise ValueError(f"model-config.yaml: imagebatch.{error}") from error
        if not 0 <= settings.review <= 1:
            raise ValueError(
                f"model-config.yaml: imagebatch.review must be from 0 to 1: got {settings.review}"
            )
        if settings.review and settings.head == "regression":
            raise ValueError("model-config.yaml: imagebatch.review says nothing about head regression")
        if settings.crop > settings.resize:
            raise ValueError("model-config.yaml: imagebatch.crop must not be larger than imagebatch.resize")
        if settings.pixels not in PIXELS_VERSIONS:
            raise ValueError(
                f"the model was trained on pixels {settings.pixels}, this code makes "
                f"{' and '.join(PIXELS_VERSIONS)}: train and archive it again"
            )
        return settings


class ImageModel:
    """A loaded model. Not safe to share between threads.

    Attributes:
        digest: Names the content of the archive.
        parity: Digest of the parity certificate in the archive; None where there is none.
        embedding: Numbers in an image's embedding; 0 where the engine gives none.

    Args:
        folder: An unpacked archive with `index_to_name.json` (which a regression has none of) and the
            engine's files.
        settings: How to load and call it.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The labels are not text numbered 0..n-1, the model does not answer one finite logit
            each, or what is declared about the head does not fit it.
    """

    def __init__(self, folder: str | Path, settings: Settings) -> None:
        self.settings = settings
        self._view, self._fit = settings.view, settings.square
        names = Path(folder) / "index_to_name.json"
        self.labels = [] if settings.head == "regression" and not names.is_file() else _read_labels(names)
        self.head = make_head(settings.head, self.labels, settings.declared)
        self.digest = content_digest(folder)
        self.parity = file_digest(Path(folder) / PARITY)
        self._engine: Engine = load_engine(settings.engine, folder)
        if settings.head != SoftmaxHead.name and isinstance(self._engine, CascadeEngine):
            raise ValueError(f"engine {settings.engine} compares the two best classes: head must be softmax")
        # Also warms the engine up, so that the first request is not the slow one.
        self.head.check(self.infer(torch.zeros((3, settings.crop, settings.crop), dtype=torch.uint8)))
        features = self.features()
        self.embedding = 0 if features is None else len(features)

    def describe(self) -> dict[str, Any]:
        """Say what this model is: labels, head, input, engine, parity (docs/reference/wire.md)."""
        settings = self.settings
        size = {"resize": settings.resize, "crop": settings.crop, "channels": 3, "pixels": settings.pixels}
        size |= self._view.declared() | self._fit.declared()
        # Left out, not null: TorchServe's management API drops nulls, and both must tell the same.
        parity = {"parity": self.parity} if self.parity else {}
        embedding = {"embedding": self.embedding} if self.embedding else {}
        review = {"review": settings.review} if settings.review else {}
        said = {"labels": self.labels} | self.head.describe() | review | {"input": size}
        return said | self._engine.describe() | embedding | parity | {"pages": True}

    def decode(self, data: bytes | bytearray | memoryview, page: int | None = None) -> torch.Tensor:
        """Turn an image file, or one page of it, into uint8 pixels (3, crop, crop).

        Args:
            data: A whole image file.
            page: Number of the page or frame, from 1; None: the one that the archive declares.

        Raises:
            ImageError: It cannot be decoded completely.
        """
        settings = self.settings
        try:
            return decode(
                data,
                resize=settings.resize,
                crop=settings.crop,
                max_pixels=settings.max_pixels,
                view=replace(self._view, page=page) if page else self._view,
                fit=self._fit,
                version=settings.pixels,
            )
        except ImageError as error:
            if error.reason != "too_many_pixels":
                raise
            raise ImageError(
                error.reason, f"{error.detail}; see max_pixels in the archive's model-config.yaml"
            ) from error

    def infer(self, pixels: torch.Tensor) -> Logits:
        """Compute float32 logits (classes,) of uint8 pixels (3, crop, crop)."""
        return self._engine.infer(pixels)

    def features(self) -> Features | None:
        """Give the features (embedding,) of the image that was inferred last; None where there are none."""
        return self._engine.features()

    def predict(self, logits: Logits, top_k: int) -> Predicted:
        """Answer for one image, as the head does.

        Args:
            logits: float32 (outputs of the head,).
            top_k: Labels wanted of a softmax.

        Raises:
            ValueError: The logits do not fit the head or are not finite: the model is at fault.
            OutOfRangeError: The answer to this image cannot be.
        """
        return self.head.predict(logits, top_k)

    def entry(self, predicted: Predicted) -> dict[str, Any]:
        """Make an image's entry of a reply."""
        return self.head.entry(predicted)


def _read_labels(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return [_name(names[str(index)]) for index in range(len(names))]
    except KeyError as error:
        raise ValueError(
            f"{path.name} must number its labels from 0 without a gap: {error} is missing"
        ) from error
    except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path.name} must hold {{"0": "label", "1": …}} as UTF-8: {error}') from error


def _name(label: Any) -> str:
    """Read a label: text, or a pair of an id and text, as in TorchServe's own example of ImageNet.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(label, list) and len(label) == _PAIR and all(isinstance(part, str) for part in label):
        label = label[1]
    if not isinstance(label, str) or not label.strip():
        raise ValueError(
            f"index_to_name.json: {json.dumps(label)[:80]} is no label: text is, or a pair of an id and text"
        )
    return label
