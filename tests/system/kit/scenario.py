"""What a scenario is: something that is done to a system, under a name, with a sentence that says what."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tools.paths import fail

USAGE = 2  # exit code of a command that was not understood


@dataclass(frozen=True)
class Scenario:
    """One row of a suite's table.

    Attributes:
        name: What it is chosen by.
        text: One sentence of what is done.
        act: Does it to the suite's system.
        part: The part of the suite that it belongs to.
    """

    name: str
    text: str
    act: Callable[..., Any]
    part: str = ""


Kind = TypeVar("Kind", bound=Scenario)


def described(act: Callable[..., Any]) -> dict[str, str]:
    """Name, text and part of a function: its own name, its docstring's first paragraph, its module's name."""
    return {
        "name": act.__name__.replace("_", "-"),
        "text": re.sub(r"\s+", " ", (act.__doc__ or "").split("\n\n")[0]).strip(),
        "part": act.__module__.rpartition(".")[2],
    }


def choose(scenarios: Sequence[Kind], parts: str, names: str) -> list[Kind]:
    """Choose scenarios.

    Args:
        scenarios: All of a suite.
        parts: Names of its parts, separated by spaces; empty = all.
        names: Pieces of scenarios' names, separated by spaces or `or`; empty = all.

    Raises:
        SystemExit: With 2, there is no such part, or no scenario of such a name in it.
    """
    known = list(dict.fromkeys(one.part for one in scenarios))
    unknown = [part for part in parts.split() if part not in known]
    if unknown:
        fail(f"there is no part {', '.join(unknown)}; the parts are {', '.join(known)}", USAGE)
    within = [one for one in scenarios if not parts or one.part in parts.split()]
    pieces = [piece for piece in names.split() if piece != "or"]
    chosen = [one for one in within if not pieces or any(piece in one.name for piece in pieces)]
    if not chosen:
        fail(f"no scenario is named {names}; there are {', '.join(one.name for one in within)}", USAGE)
    return chosen
