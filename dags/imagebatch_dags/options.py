"""What may stand in a key of a pipeline's file or a field of the trigger form, and whether a value may.

Whatever is refused is named with its key and with what is allowed.
"""

import math
import re
import unicodedata
from dataclasses import Field, dataclass, field
from types import NoneType
from typing import Any, get_args


class PipelineError(ValueError):
    """A pipeline cannot be what somebody has written.

    Args:
        key: the key at fault; empty where it is not one alone.
        reason: what is wrong with it, and what is allowed.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)


@dataclass(frozen=True, kw_only=True)
class Option:
    """What may stand in a field of `Pipeline`, and who gets it.

    Attributes:
        says: one sentence for the trigger form and the docs.
        commands: of `imagebatch` that get it as a flag; `check_images` is `check` of the suite `images`.
        title: of its field in the trigger form; empty: only the pipeline's file sets it.
        least: smallest number.
        most: largest number, or longest text.
        above: number that it must be above.
        pattern: of a text.
        shape: the pattern in words, with an example.
        encoding: it must name an encoding of text.
        lines: it may have several lines.
        of_lists: it is about a list (a manifest or a query), and means nothing where an input is scored.
    """

    says: str
    commands: tuple[str, ...] = ()
    title: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    pattern: str = ""
    shape: str = ""
    encoding: bool = False
    of_lists: bool = False
    lines: bool = False


def option(default: Any, says: str, *commands: str, **more: Any) -> Any:
    """Declare a field of `Pipeline`; None leaves the value to the installation's settings."""
    return field(default=default, metadata={"option": Option(says=says, commands=commands, **more)})


def option_of(each: Field[Any]) -> Option:
    """Give what a field of `Pipeline` allows."""
    found: Option = each.metadata["option"]
    return found


def kind_of(each: Field[Any]) -> Any:
    """Give the type of a field, without None."""
    kinds = [kind for kind in get_args(each.type) if kind is not NoneType]
    return kinds[0] if kinds and NoneType in get_args(each.type) else each.type


def may_be_none(each: Field[Any]) -> bool:
    """Tell whether a field may leave its value to the installation."""
    return NoneType in get_args(each.type)


def check(each: Field[Any], value: Any) -> None:
    """Refuse a value that a field of `Pipeline` does not take.

    Raises:
        PipelineError: it names the key and what is allowed.
    """
    if value is None and may_be_none(each):
        return
    kind, allows = kind_of(each), option_of(each)
    if kind is str:
        _check_text(each.name, value, allows)
    elif kind is bool:
        if not isinstance(value, bool):
            raise PipelineError(each.name, f"must be true or false, not {shown(value)}")
    elif kind in {int, float}:
        _check_number(each.name, value, kind, allows)
    else:
        _check_texts(each.name, value, allows)


def shown(value: Any) -> str:
    """Show a value of a file, bounded: what is nested is named, not written out."""
    names = {dict: "a mapping", list: "a list", NoneType: "nothing"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004 - a line of a log


def _check_text(key: str, value: Any, allows: Option) -> None:
    if not isinstance(value, str):
        hint = "" if isinstance(value, dict | list | NoneType) else f': put it in quotes, "{shown(value)}"'
        raise PipelineError(key, f"must be text, not {shown(value)}{hint}")
    within = "\n\t" if allows.lines else ""
    if any(unicodedata.category(letter) in {"Cc", "Cs"} and letter not in within for letter in value):
        raise PipelineError(key, f"{shown(value)} holds a control character")
    if allows.most is not None and len(value) > allows.most:
        raise PipelineError(key, f"has {len(value)} characters, at most {allows.most:g} are allowed")
    if allows.encoding and not _names_an_encoding(value):
        raise PipelineError(
            key, f"{shown(value)} must be an encoding of text, such as utf-8, utf-16 or cp1252"
        )
    if allows.pattern and not re.search(allows.pattern, value):
        raise PipelineError(key, f"{shown(value)} must be {allows.shape}")


def _names_an_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def _check_number(key: str, value: Any, kind: type, allows: Option) -> None:
    wanted = "a whole number" if kind is int else "a number"
    if allows.above is not None:
        wanted += f" above {allows.above:g} and at most {allows.most:,g}"
    else:
        wanted += f" from {allows.least:,g} to {allows.most:,g}"
    right = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if right and math.isfinite(value):
        low = value > allows.above if allows.above is not None else value >= (allows.least or 0)
        right = low and value <= (allows.most or math.inf)
    else:
        right = False
    if not right:
        raise PipelineError(key, f"must be {wanted}, not {shown(value)}")


def _check_texts(key: str, value: Any, allows: Option) -> None:
    if not isinstance(value, list):
        raise PipelineError(key, f"must be a list such as [a, b], not {shown(value)}")
    for one in value:
        _check_text(key, one, allows)
        if not one:
            raise PipelineError(key, "holds an empty text")
