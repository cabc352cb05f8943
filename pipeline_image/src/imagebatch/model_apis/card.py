"""The model card: what a server does not say of its model, from a file of the user's (--model-card)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagebatch.errors import ConfigurationError, one_line


class ModelCard(BaseModel):
    """What is known of a model beside what its server says.

    Attributes:
        labels: Class names by class index; empty: as the server says.
        digest: Of the model, `sha256:` and 64 hex digits; empty: as the server says.
        scores: Whether the numbers that the server answers are probabilities, or logits, of which the
            softmax is yet to be taken.
        input: Name of the tensor that takes the images; empty: the only one.
        output: Name of the tensor with a number per class; empty: the only one of that shape.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    labels: list[str] = []
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    scores: Literal["probabilities", "logits"] = "probabilities"
    input: str = ""
    output: str = ""


def read_card(path: str, model: str) -> ModelCard:
    """Read a model card.

    It is JSON: an object with the fields of `ModelCard`, the description that the handler gives of itself
    (docs/reference/wire.md), an archive's `index_to_name.json`, or a list of labels. A file that ends in
    `.txt` has a label on each line.

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
    unknown = content.keys() - ModelCard.model_fields.keys()
    if "labels" in content and isinstance(content.get("model"), dict):  # the handler's description
        return content | {"input": "", "digest": content["model"].get("digest", "")}
    if unknown:
        msg = f"unknown {', '.join(sorted(unknown))}; there are {', '.join(ModelCard.model_fields)}"
        raise ValueError(msg)
    return content
