"""The verdict on a scenario: what was seen, or why it failed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tests.system.kit.scenario import Scenario


class RefutedError(Exception):
    """A scenario shows something that must not be."""


def require(condition: object, text: str) -> None:
    """Raise RefutedError with a text unless the condition holds."""
    if not condition:
        raise RefutedError(text)


class Result(Protocol):
    """What a scenario that passed gives back."""

    @property
    def figures(self) -> str:
        """Its figures, as wide as the suite's `head`."""

    @property
    def seen(self) -> str:
        """What happened, in a few words."""


@dataclass(frozen=True)
class Seen:
    """A result without figures."""

    seen: str
    figures: str = ""


R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Verdict(Generic[R]):
    """How one scenario ended; `error` is empty if it passed, and only then there is a result."""

    scenario: Scenario
    result: R | None
    error: str
    seconds: float


def judge(scenario: Scenario, act: Callable[[Any], R]) -> Verdict[R]:
    """Play a scenario; whatever goes wrong in it is its failure, and not the end of the others."""
    begun = time.monotonic()
    try:
        result = act(scenario)
    except Exception as error:  # noqa: BLE001 - the table says which error it was
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Verdict(scenario, None, text, time.monotonic() - begun)
    return Verdict(scenario, result, "", time.monotonic() - begun)
