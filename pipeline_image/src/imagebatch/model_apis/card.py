"""The model card: what a server does not say of its model, from a file of the user's (--model-card)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagebatch.contracts.records import HeadDeclaration, HeadKind, Quantity
from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.pixels.declared import Pixels, of_description

_THRESHOLD = 0.5


class ModelCard(BaseModel):
    """What is known of a model beside what its server says.

    Attributes:
        labels: Class names by class index; empty: as the server says.
        digest: Of the model, `sha256:` and 64 hex digits; empty: as the server says.
        scores: Whether the numbers that the server answers are probabilities, or logits, of which the
            softmax, or the sigmoid of a multilabel head, is yet to be taken.
        head: What the numbers mean (docs/reference/heads.md).
        thresholds: Of a multilabel head: for each class, one for all, or by label (0.5 for the others).
        quantity: Of a regression: what its score is.
        input: Name of the tensor that takes the images; empty: the only one.
        output: Name of the tensor with a number per class; empty: the only one of that shape.
        pixels: How a file becomes the pixels that the model takes; none: it takes files.
        review: Confidence below which a person should look, for `--review-below auto`; none: not known.
        whole: Whether the digest is of all that the pixels are made by, too.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    labels: list[str] = []
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    scores: Literal["probabilities", "logits"] = "probabilities"
    head: HeadKind = HeadKind.SOFTMAX
    thresholds: float | list[float] | dict[str, float] = []
    quantity: Quantity | None = None
    input: str = ""
    output: str = ""
    pixels: Pixels | None = None
    review: float | None = Field(default=None, gt=0, le=1)
    whole: bool = Field(default=False, exclude=True)

    def declaration(self, labels: list[str]) -> HeadDeclaration:
        """Return what it says of the head of a model with these labels.

        Raises:
            ConfigurationError: It does not fit the labels, or itself.
        """
        thresholds: list[float] = []
        if self.head is HeadKind.MULTILABEL or self.thresholds:
            thresholds = self._thresholds(labels)
        try:
            declared = HeadDeclaration(head=self.head, thresholds=thresholds, quantity=self.quantity)
        except ValidationError as error:
            raise ConfigurationError(f"--model-card: {error.errors()[0]['msg']}") from error
        if self.head is HeadKind.MULTILABEL and len(set(labels)) < len(labels):
            raise ConfigurationError("--model-card: two labels of a multilabel head have one name")
        return declared

    def pinned(self, digest: str) -> str:
        """Return the digest of a model together with how its numbers are read, where that is not as usual.

        Args:
            digest: Of the model that the server has, which knows nothing of the card: with another tensor, or
                with logits in the place of probabilities, its answers are others.
        """
        told = self.model_dump(include={"scores", "output"}, exclude_defaults=True)
        if not told:
            return digest
        return "sha256:" + hashlib.sha256(json.dumps([digest, told], sort_keys=True).encode()).hexdigest()

    def _thresholds(self, labels: list[str]) -> list[float]:
        given = self.thresholds
        if isinstance(given, float):
            return [given] * len(labels)
        if isinstance(given, dict):
            unknown = [label for label in given if label not in labels]
            if unknown:
                raise ConfigurationError(
                    f"--model-card: thresholds of {one_line(unknown[0], 80)!r}, no label of the model"
                )
            return [given.get(label, _THRESHOLD) for label in labels]
        if given and len(given) != len(labels):
            raise ConfigurationError(f"--model-card: {len(given)} thresholds for {len(labels)} labels")
        return given or [_THRESHOLD] * len(labels)


def read_card(path: str, model: str) -> ModelCard:
    """Read a model card.

    It is JSON: an object with the fields of `ModelCard`, the description that the handler gives of itself
    (docs/reference/wire.md), what lies beside an archive (`solar-cells.json`), its `index_to_name.json`, or a
    list of labels. A file that ends in `.txt` has a label on each line.

    Args:
        path: The setting; `{model}` in it stands for the model's name; empty: nothing is known.
        model: Name of the model.

    Raises:
        ConfigurationError: There is no such file, or it is no model card.
    """
    if not path:
        return ModelCard()
    file = Path(path.replace("{model}", model))
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix == ".txt":
            return ModelCard(labels=[line.strip() for line in text.splitlines() if line.strip()])
        return ModelCard.model_validate(_fields(json.loads(text)))
    except OSError as error:
        raise ConfigurationError(f"--model-card {file}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"--model-card {file}: {where}: {first['msg']}") from error
    except ValueError as error:
        raise ConfigurationError(f"--model-card {file} is no model card: {one_line(error, 200)}") from error


def _fields(content: Any) -> Any:
    if isinstance(content, list):
        return {"labels": content}
    if not isinstance(content, dict):
        msg = "neither an object nor a list"
        raise ValueError(msg)  # noqa: TRY004 (a file's content, not an argument)
    if content and all(key.isdecimal() for key in content):
        missing = [str(index) for index in range(len(content)) if str(index) not in content]
        if missing:
            msg = f"classes are numbered from 0 without a gap, and {missing[0]} is missing"
            raise ValueError(msg)
        return {"labels": [content[str(index)] for index in range(len(content))]}
    there = [name for name in ModelCard.model_fields if name != "whole"]
    unknown = content.keys() - set(there)
    described = content.get("input")
    if "labels" in content and (isinstance(described, dict) or isinstance(content.get("model"), dict)):
        return _described(content, described if isinstance(described, dict) else {})
    if unknown:
        msg = f"unknown {', '.join(sorted(unknown))}; there are {', '.join(there)}"
        raise ValueError(msg)
    return content


def _described(content: dict[str, Any], taken: dict[str, Any]) -> dict[str, Any]:
    """Read the handler's description of itself, or the file that lies beside an archive."""
    model = content["model"] if isinstance(content.get("model"), dict) else content
    pixels = of_description(taken)
    told = {*HeadDeclaration.model_fields, "review"}
    head = {name: said for name, said in content.items() if name in told}
    made = {"digest": model.get("digest", ""), "pixels": pixels, "whole": True}
    return {"labels": content["labels"]} | made | head
