"""What a scenario is: a function that disturbs a run, and what became of the run."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ALL: list["Scenario"] = []


class RefutedError(Exception):
    """A scenario shows something that must not be."""


@dataclass(frozen=True)
class Result:
    """What became of a scenario's run, or runs.

    Attributes:
        images: Images listed, in all runs together.
        lost: Listed images that are neither predicted nor accounted for as failed.
        doubled: Images that stand more than once in the results.
        extra_seconds: Wall time of the disturbed scoring beyond that of the undisturbed one.
        seen: What happened on the way, in a few words.
    """

    images: int
    lost: int
    doubled: int
    extra_seconds: float
    seen: str


@dataclass(frozen=True)
class Scenario:
    """A name, one sentence of what is done, and the function that does it to a `Ground`."""

    name: str
    text: str
    act: Callable[[Any], Result]


def scenario(act: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """Puts a function into the list; its docstring's first paragraph becomes the table's text."""
    text = re.sub(r"\s+", " ", (act.__doc__ or "").split("\n\n")[0]).strip()
    ALL.append(Scenario(act.__name__.replace("_", "-"), text, act))
    return act


def require(condition: object, text: str) -> None:
    """Raises RefutedError with a text unless the condition holds."""
    if not condition:
        raise RefutedError(text)
