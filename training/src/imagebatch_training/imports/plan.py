"""What an import is about: the model, what is declared of it, its labels, and the images that prove it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.imports.answers import Doubles, choose_output
from imagebatch_training.imports.graph import ends_with
from imagebatch_training.imports.head import Head
from imagebatch_training.imports.heads import RegressionHead, SoftmaxHead, settle_head
from imagebatch_training.imports.labels import Labels, settle_labels
from imagebatch_training.imports.network import Shape, Source, Transform
from imagebatch_training.imports.pictures import Picture, draw_pictures, find_pictures
from imagebatch_training.imports.preprocessing import Declared, Preprocessing, read_file, settle
from imagebatch_training.imports.readers import read_source
from imagebatch_training.imports.request import HEAD_KEYS, Request
from imagebatch_training.imports.transforms import libraries, reference

_PLANES: Final = 3
_RANK: Final = 4
_INPUT: Final = "the model's input"
_WORD: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is settled before anything is computed.

    Attributes:
        source: The model.
        name: Of model and archive.
        version: Of the model on its server.
        pre: Preprocessing and outputs.
        origins: By field of `pre` and key of the head, who said so.
        output: Position of the output with the classes, or the score.
        head: What its numbers mean.
        pictures: Images for the proof.
        drawn: Whether they were drawn for want of others.
    """

    source: Source
    name: str
    version: str
    pre: Preprocessing
    origins: dict[str, str]
    output: int
    head: Head
    pictures: Sequence[Picture]
    drawn: bool

    @property
    def own_transform(self) -> tuple[Transform, str]:
        """The reference's preprocessing, and what it is: the library's own where that is what is declared."""
        source, declared = self.source, self.source.declared
        if source.transform is not None and declared is not None:
            ignored = {"outputs"} | (set() if self.pre.fit == "pad" else {"padding"})
            same = all(
                getattr(self.pre, name) == said
                for name, said in declared.values.items()
                if name not in ignored
            )
            if same or source.published:
                return source.transform, f"{declared.by}, as its library applies it"
        return reference(self.pre), f"{libraries()}, as declared"

    def with_outputs(self, raw: Doubles) -> "Plan":
        """Settle by the model's raw answers (images, classes) what its outputs are.

        Raises:
            ConfigurationError: They may be one or the other, and nobody says.
            DataError: Something else was declared.
        """
        network, said_by = self.source.network, self.origins["outputs"]
        said = None if said_by == "default" else self.pre.outputs
        found = self.head.outputs(raw, said, said_by, lambda: ends_with(network, self.pre, self.output))
        self.source.notes.extend(self.head.notes(raw, found))
        seen = f"seen on {len(raw)} images" if self.head.ends else f"head {self.head.name}"
        origins = self.origins if found == said else self.origins | {"outputs": seen}
        return replace(self, pre=replace(self.pre, outputs=found), origins=origins)


def make_plan(request: Request, presets: Path, folder: Path) -> Plan:
    """Read the model and settle what is declared.

    Args:
        request: What is imported, and what is said of it.
        presets: Folder of the shipped preprocessing.
        folder: For drawn images.

    Raises:
        ConfigurationError: Something is not said, or cannot be.
        DataError: The model is of no kind that can be served.
        DownloadError: Published weights are not there and cannot be fetched.
    """
    given = [read_file(request.preprocessing, presets)] if request.preprocessing else []
    given.append(Declared("a flag", request.flags))
    kind, said, by = settle_head(given)
    _require_fitting(kind, request)
    source = read_source(request)
    pre, origins = _settled(source, given)
    if kind is RegressionHead and origins["outputs"] in [one.by for one in given]:
        raise ConfigurationError(f"{origins['outputs']}: outputs says nothing about head regression")
    output, classes = choose_output(source.network, pre, request.output)
    kind.require(classes)
    pictures, folders = (
        find_pictures(request.images, request.most) if request.images else (draw_pictures(folder), [])
    )
    return Plan(
        source=source,
        name=_name(request.name or source.name),
        version=_name(request.version),
        pre=pre,
        origins=origins | by,
        output=output,
        head=kind(said, _names(kind, source, request, folders, classes)),
        pictures=pictures,
        drawn=request.images is None,
    )


def _name(text: str) -> str:
    name = "-".join(_WORD.findall(text)).strip(".-")
    if not name:
        raise ConfigurationError(f"--name and --model-version must have letters or digits: got {text!r}")
    return name


def _require_fitting(kind: type[Head], request: Request) -> None:
    """Refuse a head that is not the source's, or has no use for what is given, before anything is fetched.

    Raises:
        ConfigurationError: It is not, or has not.
    """
    if request.source.startswith("torchvision:") and kind is not SoftmaxHead:
        raise ConfigurationError(
            f"{request.source} is published as one class of several: leave out --head {kind.name}, or give "
            "the file of your own weights"
        )
    if not kind.has_labels and request.labels is not None:
        raise ConfigurationError(f"a {kind.name} has no labels: leave out --labels")


def _names(
    kind: type[Head], source: Source, request: Request, folders: Sequence[str], classes: int
) -> Labels:
    if not kind.has_labels:
        return (), kind.name
    # A folder holds the images of one class: no model of several labels sorts them so.
    return settle_labels(request.labels, source.labels, folders if kind.one_class else (), classes)


def _settled(source: Source, given: Sequence[Declared]) -> tuple[Preprocessing, dict[str, str]]:
    facts = _facts(source.network.shape)
    declared = [source.declared] if source.declared else []
    declared.append(Declared(_INPUT, facts))
    for by, values in given:
        mine = {key: value for key, value in values.items() if key not in HEAD_KEYS}
        declared.append(Declared(by, mine))
    pre, origins = settle(declared)
    for name, fact in facts.items():
        if getattr(pre, name) != fact:
            raise DataError(
                f"wrong {_CAUSES[name]}: {origins[name]} says {name} {getattr(pre, name)}, the model's input "
                f"is {_shown(source.network.shape)}: --{name} {fact}"
            )
    return pre, origins


_CAUSES: Final = {"layout": "layout", "crop": "resize or crop"}


def _facts(shape: Shape) -> dict[str, Any]:
    """Read off a shape what it says of preprocessing.

    Raises:
        DataError: It is none that can be served.
    """
    if not shape:
        return {}
    if len(shape) != _RANK or shape[0] not in (None, 1):
        raise DataError(
            f"the model's input is {_shown(shape)}: export it with a batch of 1, or of any size, and rank 4"
        )
    first, last = shape[1] == _PLANES, shape[3] == _PLANES
    if not (first or last or None in (shape[1], shape[3])):
        raise DataError(f"the model's input is {_shown(shape)}: three channels are served, first or last")
    facts: dict[str, Any] = {} if first == last else {"layout": "nchw" if first else "nhwc"}
    high, wide = shape[1:3] if last and not first else shape[2:4]
    if None not in (high, wide) and high != wide:
        raise DataError(f"the model's input is {_shown(shape)}: squares alone are served")
    return facts if high is None else facts | {"crop": high}


def _shown(shape: Shape) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
