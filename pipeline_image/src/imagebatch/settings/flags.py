"""A command's settings as people meet them: flags in groups, each with its value, default and sentence."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import CliPositionalArg

from imagebatch.settings.base import CommonSettings
from imagebatch.settings.file import PREFIX
from imagebatch.settings.values import ValueName

REQUIRED = "Required."
ONE_OF = "Exactly one of these is required."
OWN = "Its own flags."
_POSITIONAL = get_args(CliPositionalArg[str])[1]  # what pydantic-settings marks such a field with


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting of one command.

    Attributes:
        setting: Its name.
        home: The class that declares it first; flags of one home belong together.
        value: What stands for its value, a unit or a kind; empty for a switch.
        least: Its bound from below, as "1" or "above 0"; empty where there is none.
        most: Its bound from above, as "1024" or "below 1"; empty where there is none.
        default: As one would type it; empty where there is none.
        needed: `REQUIRED`, `ONE_OF` or empty.
        positional: It is given by its value alone.
        sentence: What it does.
    """

    setting: str
    home: type[CommonSettings]
    value: str
    least: str
    most: str
    default: str
    needed: str
    positional: bool
    sentence: str

    @property
    def options(self) -> list[str]:
        """Give what may be typed for it, without its value."""
        kebab = self.setting.replace("_", "-")
        if self.positional:
            return []
        return [f"--{kebab}"] if self.value else [f"--{kebab}", f"--no-{kebab}"]

    @property
    def typed(self) -> str:
        """Give what is typed, with the name of its value."""
        return " ".join(filter(None, [", ".join(self.options), self.value]))

    @property
    def variable(self) -> str:
        """Name the environment variable that sets it, too."""
        return f"{PREFIX}{self.setting.upper()}"


def flags(kind: type[CommonSettings]) -> list[Flag]:
    """Describe every setting of a command, in the order of its fields."""
    return [_flag(kind, name, field) for name, field in kind.model_fields.items()]


def groups(kind: type[CommonSettings]) -> dict[str, list[Flag]]:
    """Sort a command's flags for a reader.

    Returns:
        Titles and their flags: what must be given, what the command declares itself, then what each class
        of common settings gives it, and last what every command takes.
    """
    found: dict[str, list[Flag]] = {REQUIRED: [], ONE_OF: [], OWN: []}
    for flag in flags(kind):
        title = flag.needed or (OWN if flag.home is kind else summary(flag.home))
        found.setdefault(title, []).append(flag)
    common = found.pop(summary(CommonSettings))
    return {title: some for title, some in found.items() if some} | {summary(CommonSettings): common}


def summary(kind: type[CommonSettings]) -> str:
    """Give the first line of a class's docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _flag(kind: type[CommonSettings], name: str, field: FieldInfo) -> Flag:
    needed = REQUIRED if field.is_required() else ONE_OF if name in kind.one_of else ""
    homes = [base for base in kind.__mro__ if name in inspect.get_annotations(base)]
    return Flag(
        setting=name,
        home=homes[-1],
        value=_value(field),
        least=_bound(field, "ge", "gt", "above"),
        most=_bound(field, "le", "lt", "below"),
        default=_default(field),
        needed=needed,
        positional=_POSITIONAL in field.metadata,
        sentence=field.description or "",
    )


def _value(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    return next((note.text for note in field.metadata if isinstance(note, ValueName)), "")


def _bound(field: FieldInfo, closed: str, opened: str, word: str) -> str:
    for note in field.metadata:
        if (bound := getattr(note, closed, None)) is not None:
            return f"{bound}"
        if (bound := getattr(note, opened, None)) is not None:
            return f"{word} {bound}"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is None:
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return str(field.default)
