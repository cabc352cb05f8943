"""Which tensor of a model takes the images, and whether as files or as pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.card import ModelCard
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.pixels.pool import Datatype, Layout

_IMAGE = 3  # dimensions of one image's pixels
_CHANNELS = 3
_ANY = -1
_WITH_BATCH = 2  # dimensions of files' tensor, where its elements are a batch's, as Triton's [n, 1]
_SAY = 'say in --model-card, "pixels", how a file becomes them (docs/reference/model-apis.md)'


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The tensor that takes the images.

    Attributes:
        name: Of the tensor.
        datatype: `BYTES` for files; `UINT8` or `FP32` for pixels.
        columns: Of files, whether each is a row of one element.
        layout: Of pixels: channels first or last.
        most: Images of a request; 0: as many as there are.
        batched: Of pixels, whether the tensor has a dimension for the images.
    """

    name: str
    datatype: str = "BYTES"
    columns: bool = False
    layout: Layout = "NCHW"
    most: int = 0
    batched: bool = True


def image_input(inputs: Sequence[Mapping[str, Any]], card: ModelCard, model: str, most: int) -> ImageInput:
    """Choose the tensor that takes the images.

    Args:
        inputs: What the metadata say; nothing, where the server need not say.
        card: What the user says.
        model: Name of the model, for messages.
        most: Images of a request, where the server says that.

    Raises:
        ConfigurationError: It is not clear which one, or it takes what is not made here.
    """
    if not inputs:
        return _unsaid(card, model)
    named = [tensor for tensor in inputs if card.input in {"", tensor.get("name")}]
    if len(named) != 1:
        names = ", ".join(str(tensor.get("name")) for tensor in inputs)
        raise ConfigurationError(
            f"{model} takes the tensors {one_line(names, 200)}: say which takes the images in --model-card,"
            ' "input"'
        )
    (tensor,) = named
    name, datatype, shape = str(tensor["name"]), str(tensor.get("datatype")), tensor.get("shape") or []
    takes = f"{model} takes {one_line(datatype, 20)} {one_line(shape, 60)}"
    if datatype == "BYTES":
        if card.pixels and card.pixels.datatype:
            raise ConfigurationError(f"{takes} and not the {card.pixels.datatype} of --model-card")
        return ImageInput(name, columns=len(shape) == _WITH_BATCH)
    if datatype not in {"UINT8", "FP32"}:
        raise ConfigurationError(f"{takes}: files (BYTES) and pixels (UINT8, FP32) are what can be sent")
    layout = _layout(shape, card.pixels, takes)
    _require_made(card.pixels, datatype, takes)
    batched = len(shape) > _IMAGE
    one = not batched or shape[0] == 1
    return ImageInput(name, datatype, layout=layout, most=1 if one else most, batched=batched)


def _unsaid(card: ModelCard, model: str) -> ImageInput:
    """Go by the card alone."""
    name, pixels = card.input or "image", card.pixels
    if pixels is None or not pixels.datatype:
        return ImageInput(name)
    takes = f"{model} takes {pixels.datatype}, by --model-card,"
    if not pixels.layout:
        raise ConfigurationError(f'{takes} and the server does not say its shape: give "layout" there, too')
    _require_made(pixels, pixels.datatype, takes)
    return ImageInput(name, pixels.datatype, layout=pixels.layout)


def _layout(shape: Any, pixels: Pixels | None, takes: str) -> Layout:
    """Find where the channels of an image stand, and hold its sides to the card's crop."""
    if (
        not isinstance(shape, list)
        or not all(type(side) is int for side in shape)
        or len(shape) not in {_IMAGE, _IMAGE + 1}
        or (len(shape) > _IMAGE and shape[0] not in {_ANY, 1})
    ):
        raise ConfigurationError(f"{takes}: neither images [-1, height, width, 3] nor [-1, 3, height, width]")
    if pixels is None:
        raise ConfigurationError(f"{takes}, pixels and not files: {_SAY}")
    image = shape[-_IMAGE:]
    sides: dict[str, Sequence[int]] = {"NCHW": (_CHANNELS, pixels.crop, pixels.crop)}
    sides["NHWC"] = (pixels.crop, pixels.crop, _CHANNELS)
    fit = [
        name
        for name, wanted in sides.items()
        if pixels.layout in {"", name}
        and all(side in {_ANY, number} for side, number in zip(image, wanted, strict=True))
    ]
    if not fit:
        crop = f"{pixels.crop} x {pixels.crop}{' ' * bool(pixels.layout)}{pixels.layout}"
        raise ConfigurationError(f"{takes}, which does not fit the pixels of --model-card, {crop}")
    if len(fit) > 1:
        raise ConfigurationError(f'{takes}: say NCHW or NHWC in --model-card, "pixels", "layout"')
    return cast("Layout", fit[0])


def _require_made(pixels: Pixels | None, datatype: str, takes: str) -> None:
    if pixels is None:
        raise ConfigurationError(f"{takes}, pixels and not files: {_SAY}")
    if pixels.datatype not in {"", datatype}:
        raise ConfigurationError(f"{takes} and not the {pixels.datatype} of --model-card")
    if datatype == "FP32" and pixels.mean is None:
        raise ConfigurationError(f'{takes}: give "mean" and "std" of its numbers in --model-card, "pixels"')


def tensor_kind(chosen: ImageInput) -> tuple[Datatype, Layout]:
    """Return what the pixels are made as."""
    return cast("Datatype", chosen.datatype), chosen.layout
