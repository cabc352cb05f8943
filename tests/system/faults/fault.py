"""A fault: what is done to the platform, and which alert must arrive, and no other."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.system.faults.platform_under_watch import Platform

# Breaks something and yields the moment; resumed when the alert has arrived, it repairs and yields once more.
Breaking = Callable[[Platform, str], Iterator[float]]
PATIENCE = 120.0  # seconds for an alert to arrive, and to be resolved


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: Also the pipeline's name.
        text: What is done, one sentence.
        alert: What must arrive.
        breaking: Does it.
        subject: Whom the alert is about; empty: the pipeline.
        also: Alerts that may arrive too, because they are true as well.
    """

    name: str
    text: str
    alert: str
    breaking: Breaking
    subject: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What came of a fault: seconds to its notification, and from the repair to the all-clear."""

    fault: Fault
    fired: float = 0.0
    resolved: float = 0.0
    error: str = ""


ALL: list[Fault] = []


def fault(alert: str, *, subject: str = "", also: tuple[str, ...] = ()) -> Callable[[Breaking], Breaking]:
    """Register a function as a fault; its docstring is the text."""

    def register(breaking: Breaking) -> Breaking:
        text = " ".join(str(breaking.__doc__).split())
        ALL.append(Fault(breaking.__name__.replace("_", "-"), text, alert, breaking, subject, also))
        return breaking

    return register


def play(platform: Platform, one: Fault) -> Seen:
    """Make a fault, wait for its alert, repair it, wait for the all-clear; nothing else may be told."""
    subject = one.subject or one.name
    began = time.time()
    try:
        steps = one.breaking(platform, one.name)
        broken = next(steps)
        fired = platform.webhooks.wait(one.alert, subject, "firing", began, PATIENCE)
        repairing = time.time()
        next(steps)
        cleared = platform.webhooks.wait(one.alert, subject, "resolved", fired, PATIENCE)
        resolved = cleared - repairing
        next(steps, None)
        told = {name for each in {subject, one.name} for name in platform.webhooks.firing(each, began)}
        if wrong := told - {one.alert} - set(one.also):
            return Seen(one, fired - broken, resolved, f"also told: {', '.join(sorted(wrong))}")
        return Seen(one, fired - broken, resolved)
    except (TimeoutError, AssertionError, OSError, StopIteration) as error:
        return Seen(one, error=f"{type(error).__name__}: {error}"[:300])
    finally:
        platform.forget(one.name)
