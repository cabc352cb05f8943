"""A model archive, found in a folder as KServe's storage lays it down, unpacked and loaded."""

from __future__ import annotations

import json
import queue
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Model = Any
"""`imagebatch_model.ImageModel` of the archive: its code comes with it, and is in no environment."""


class ArchiveError(Exception):
    """There is no archive that can be served; its text is the one line that says why."""


@dataclass(frozen=True)
class Served:
    """A loaded archive, as often as images are scored at once.

    Attributes:
        version: The model's, of the archive's manifest.
        digest: Names the content of the archive.
        labels: Class names, by class index; none of a regression.
        head: What the model's numbers mean: `softmax`, `multilabel` or `regression`.
        most: Images that one request may hold.
        refusals: What the archive's code raises of an image that it cannot read, or of an answer that cannot
            be: with `reason` and `detail`.
    """

    version: str
    digest: str
    labels: list[str]
    head: str
    most: int
    refusals: tuple[type[Exception], ...]
    _copies: queue.SimpleQueue[Model] = field(repr=False)

    @contextmanager
    def copy(self) -> Iterator[Model]:
        """Lend a copy to the calling thread alone: a model is not safe to share; waits while all are lent."""
        model = self._copies.get()
        try:
            yield model
        finally:
            self._copies.put(model)


def find(place: Path, name: str) -> Path:
    """Find the archive of a model.

    Args:
        place: The archive itself, a folder with archives, or one whose `model-store` has them.
        name: The model's, as its archive says; only looked at where there are several.

    Raises:
        ArchiveError: There is none, or there are several and not one of that name.
    """
    if place.is_file():
        return place
    found = sorted({*place.glob("*.mar"), *place.glob("model-store/*.mar")})
    if not found:
        raise ArchiveError(f"no *.mar in {place} or {place / 'model-store'}: is the storage mounted there?")
    named = found if len(found) == 1 else [path for path in found if manifest(path)["modelName"] == name]
    if len(named) != 1:
        raise ArchiveError(f"{len(found)} archives in {place}, {len(named)} of them of a model {name}")
    return named[0]


def manifest(archive: Path) -> dict[str, Any]:
    """Read what an archive says of its model: `modelName`, `modelVersion`.

    Raises:
        ArchiveError: It is no archive.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            model = json.loads(packed.read("MAR-INF/MANIFEST.json"))["model"]
            return {"modelName": str(model["modelName"]), "modelVersion": str(model.get("modelVersion", ""))}
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ArchiveError(f"{archive} is no model archive: {error}") from error


def load(archive: Path, folder: Path, copies: int, digest: str = "") -> Served:
    """Unpack an archive, check it, and load it with the code that it brings.

    Args:
        archive: A `.mar` of `imagebatch-train`.
        folder: An empty folder for its files, which must stay.
        copies: How many images are scored at once, each on one core.
        digest: What the content must be; empty: anything.

    Raises:
        ArchiveError: It cannot be served; its own code says why, or its content is another one.
    """
    version = manifest(archive)["modelVersion"]
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        sys.path.insert(0, str(folder))
        from imagebatch_archive import MODULES, content_digest  # noqa: PLC0415 - the archive's own, just unpacked
        from imagebatch_header import ImageError  # noqa: PLC0415 - the archive's own, just unpacked
        from imagebatch_model import ImageModel, Settings  # noqa: PLC0415 - the archive's own, just unpacked

        _require_origin(MODULES, folder)
        found = content_digest(folder)
        _require(found, digest)
        config = yaml.safe_load((folder / "model-config.yaml").read_text("utf-8"))
        settings = Settings.from_config(config or {})
        _one_thread()
        models = [ImageModel(folder, settings) for _ in range(copies)]
    except ArchiveError:
        raise
    except Exception as error:
        raise ArchiveError(f"{archive}: {type(error).__name__}: {error}") from error
    ready = queue.SimpleQueue[Model]()
    for model in models:
        ready.put(model)
    return Served(
        version,
        found,
        list(models[0].labels),
        # An archive of before there were others says nothing, and has no module of heads.
        getattr(settings, "head", "softmax"),
        settings.max_images,
        (ImageError, *_out_of_range()),
        ready,
    )


def _out_of_range() -> list[type[Exception]]:
    heads = sys.modules.get("imagebatch_heads")
    return [] if heads is None else [heads.OutOfRangeError]


def _require(found: str, digest: str) -> None:
    if digest and found != digest:
        raise ArchiveError(f"the archive is {found}, {digest} is asked for")


def _require_origin(modules: tuple[str, ...], folder: Path) -> None:
    """Refuse to run code that the digest does not cover, such as an installed copy of a module."""
    for name in modules:
        module = sys.modules.get(Path(name).stem)
        if module is not None and Path(str(module.__file__)).resolve().parent != folder.resolve():
            raise ArchiveError(f"{name} was imported from {module.__file__} and not from the archive")


def _one_thread() -> None:
    import torch  # noqa: PLC0415 - a second, and nothing before needs it

    torch.set_num_threads(1)
