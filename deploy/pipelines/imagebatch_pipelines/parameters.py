"""Values for a pipeline's parameters, checked before anything is started.

Neither kfp's local runner nor the SDK of Vertex AI says in one line what is missing or of the wrong kind;
Vertex AI would say so only when the pipeline runs.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imagebatch_pipelines.stages import PARAMETERS

KINDS = {"STRING": str, "NUMBER_INTEGER": int}


class ParameterError(ValueError):
    """Values that the pipeline does not take; the text names the first and says what to do."""


@dataclass(frozen=True)
class Declared:
    """A parameter as a pipeline declares it: its type, and whether it may be left out."""

    kind: type
    optional: bool


TABLE = {one.name: Declared(one.kind, one.default is not None) for one in PARAMETERS.values()}


def declared_in(template: Mapping[str, Any]) -> dict[str, Declared]:
    """Read what a compiled pipeline declares.

    Args:
        template: The parsed YAML; `root.inputDefinitions.parameters` has names, types and defaults.

    Raises:
        ParameterError: It is no compiled pipeline, or declares a type that has no form on a command line.
    """
    try:
        found = template["root"].get("inputDefinitions", {}).get("parameters", {})
        declared = {
            name: Declared(KINDS[one["parameterType"]], "defaultValue" in one or bool(one.get("isOptional")))
            for name, one in found.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ParameterError(f"not a compiled pipeline of text and whole numbers: {error!r}") from error
    return declared


def read(pairs: Sequence[str], declared: Mapping[str, Declared] = TABLE) -> dict[str, str | int]:
    """Read NAME=VALUE, each once, into values of the right types.

    Args:
        pairs: From a command line.
        declared: What the pipeline declares.

    Raises:
        ParameterError: One is unknown, twice there, of another type, or missing.
    """
    values = {name: _typed(name, text, declared) for name, text in variables(pairs).items()}
    return checked(values, declared)


def variables(pairs: Sequence[str]) -> dict[str, str]:
    """Read NAME=VALUE, each name once.

    Raises:
        ParameterError: One has no name or no value, or is twice there.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ParameterError(f"{pair!r} is not NAME=VALUE")
        if name in found:
            raise ParameterError(f"{name} is given twice")
        found[name] = text
    return found


def checked(values: Mapping[str, object], declared: Mapping[str, Declared]) -> dict[str, str | int]:
    """Return the values if they are what the pipeline declares.

    Raises:
        ParameterError: One is unknown, of another type, or missing.
    """
    found: dict[str, str | int] = {}
    for name, value in values.items():
        kind = _declared(name, declared).kind
        if type(value) is not kind:  # True is an int, and no number of images
            raise ParameterError(f"{name} is {value!r}: give {_words(kind)}")
        assert isinstance(value, str | int)  # noqa: S101 - for mypy: a kind is one of these
        found[name] = value
    missing = [name for name, one in declared.items() if not one.optional and name not in found]
    if missing:
        raise ParameterError(
            f"{', '.join(missing)}: no value, and the pipeline has no default; --set {missing[0]}=…"
        )
    return found


def _typed(name: str, text: str, declared: Mapping[str, Declared]) -> str | int:
    if _declared(name, declared).kind is str:
        return text
    try:
        return int(text)
    except ValueError:
        raise ParameterError(f"{name} is {text!r}: give {_words(int)}") from None


def _declared(name: str, declared: Mapping[str, Declared]) -> Declared:
    if name in declared:
        return declared[name]
    near = difflib.get_close_matches(name, declared, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(declared)}"
    raise ParameterError(f"the pipeline has no parameter {name}; {hint}")


def _words(kind: type) -> str:
    return "a whole number" if kind is int else "a text"
