"""Which version of a model is the default, and which was before: a small file beside the archives.

TorchServe itself forgets both: after a restart the version that it loads first is its default. Whoever starts
it (`handlers/imagebatch_serve.py`, `make up`) reads this file and loads the default first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from imagebatch.errors import ConfigurationError, StorageError
from imagebatch.local_file import replace_text

_PLAIN = StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")


class Served(BaseModel):
    """A version of a model.

    Attributes:
        version: As the model server names it.
        archive: Its file in the model store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[str, _PLAIN]
    archive: Annotated[str, _PLAIN]


class Serving(BaseModel):
    """`<model>.serving.json`: what requests without a version get, and what `rollback` goes back to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: Served
    previous: Served | None = Field(default=None)

    def moved_to(self, new: Served) -> Self:
        """Return what is kept once another version is the default."""
        return self if new == self.default else type(self)(default=new, previous=self.default)


def serving_path(store: str, model: str) -> Path:
    """Return the path of a model's file in a model store."""
    return Path(store) / f"{model}.serving.json"


def read_serving(store: str, model: str) -> Serving | None:
    """Read a model's file; None where there is none.

    Raises:
        ConfigurationError: It is not what `write_serving` writes.
        StorageError: It cannot be read.
    """
    path = serving_path(store, model)
    try:
        return Serving.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path} is damaged: remove it, and set the default again") from error


def write_serving(store: str, model: str, serving: Serving) -> None:
    """Write a model's file, whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    text = serving.model_dump_json(indent=1, exclude_none=True) + "\n"
    replace_text(serving_path(store, model), text)
