"""What a model card declares of the pixels that a model takes: nothing of it is guessed."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from imagebatch_header import MOST_PIXELS, PIXELS_VERSIONS, View
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
_LARGEST_SIDE = 4096
_OF_FIT = {"fit", "interpolation", "padding", "contrast"}


class Pixels(BaseModel):
    """How a file becomes the numbers that a model takes, as the archive's `model-config.yaml` says it.

    Attributes:
        version: Of the function that makes them: the one that the model was trained with.
        resize: Shorter side before cropping, pixels.
        crop: Side of the square that the model sees, pixels.
        max_pixels: Largest width x height of an image.
        view: What the model sees of files that can be seen in more than one way.
        fit: How a picture becomes a square: `crop`, `squash` or `pad` (`imagebatch_pixels.Fit`).
        interpolation: Likewise: `bilinear` or `bicubic`.
        padding: Likewise: what `pad` fills with, `white`, `black`, `grey` or `#rrggbb`.
        contrast: Likewise: `as-is`, or `percentiles-1-99`.
        mean: Of each of red, green and blue, in 0..1, taken away before `std` divides; for FP32 alone.
        std: Likewise.
        datatype: Of the tensor, where the server does not say it.
        layout: Likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    resize: int = Field(ge=1, le=_LARGEST_SIDE)
    crop: int = Field(ge=1, le=_LARGEST_SIDE)
    max_pixels: int = Field(MOST_PIXELS, ge=1)
    view: View = View()
    fit: Literal["crop", "squash", "pad"] = "crop"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    padding: str = "black"
    contrast: Literal["as-is", "percentiles-1-99"] = "as-is"
    mean: _Channels | None = None
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    datatype: Literal["", "UINT8", "FP32"] = ""
    layout: Literal["", "NCHW", "NHWC"] = ""

    @model_validator(mode="before")
    @classmethod
    def _with_view(cls, content: Any) -> Any:
        """Take the view's fields out of the others, among which they stand in a card."""
        if not isinstance(content, dict) or "view" in content:
            return content
        seen = {name: content[name] for name in View.__dataclass_fields__ if name in content}
        return {name: value for name, value in content.items() if name not in seen} | {"view": seen}

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.crop > self.resize:
            msg = f"crop, {self.crop}, must not be larger than resize, {self.resize}"
            raise ValueError(msg)
        try:
            _ = View(background=self.padding).rgb
        except ValueError as error:
            msg = f"padding must be white, black, grey or #rrggbb, not {self.padding!r}"
            raise ValueError(msg) from error
        if self.version not in PIXELS_VERSIONS:
            msg = f"the model takes pixels of version {self.version}, this imagebatch makes"
            msg += f" {' and '.join(PIXELS_VERSIONS)}"
            raise ValueError(msg)
        if (self.mean is None) != (self.std is None):
            msg = "mean and std belong together"
            raise ValueError(msg)
        return self

    def pinned(self, digest: str) -> str:
        """Return the digest of a model together with the pixels that it is asked about.

        Args:
            digest: Of the model that the server has, which knows nothing of how its pixels are made.
        """
        told = self.model_dump(exclude={"datatype", "layout", "view", *_OF_FIT}) | self.view.declared()
        told |= self.model_dump(include=_OF_FIT, exclude_defaults=True)
        text = json.dumps([digest, told], sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def of_description(described: dict[str, Any]) -> dict[str, Any] | None:
    """Return the pixels that a handler's description of itself declares in `input`; None if it does not."""
    if not {"resize", "crop", "pixels"} <= described.keys():
        return None
    kept = {"resize", "crop", *View.__dataclass_fields__, *_OF_FIT}
    return {name: value for name, value in described.items() if name in kept} | {
        "version": described["pixels"]
    }
