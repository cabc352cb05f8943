"""A fault: what is done to the platform, and which alert must arrive, and no other."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.system.faults.platform_under_watch import Platform
from tests.system.kit.scenario import Scenario, described
from tests.system.kit.verdict import require

# Breaks something and yields the moment; resumed when the alert has arrived, it repairs and yields once more.
Breaking = Callable[[Platform, str], Iterator[float]]
PATIENCE = 120.0  # seconds for an alert to arrive, and to be resolved


@dataclass(frozen=True)
class Fault(Scenario):
    """One row of the table; `act` is a `Breaking`, and the name is also the pipeline's.

    Attributes:
        alert: What must arrive.
        subject: Whom the alert is about; empty: the pipeline.
        also: Alerts that may arrive too, because they are true as well.
    """

    alert: str = ""
    subject: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What came of a fault: its alert, seconds to the notification, and from the repair to the all-clear."""

    alert: str
    fired: float
    resolved: float
    figures: str = ""

    @property
    def seen(self) -> str:
        """In a few words."""
        return f"{self.alert} after {self.fired:.1f} s, all clear after {self.resolved:.1f} s"


ALL: list[Fault] = []


def fault(alert: str, *, subject: str = "", also: tuple[str, ...] = ()) -> Callable[[Breaking], Breaking]:
    """Register a function as a fault; its docstring is the text."""

    def register(breaking: Breaking) -> Breaking:
        ALL.append(Fault(act=breaking, alert=alert, subject=subject, also=also, **described(breaking)))
        return breaking

    return register


def play(platform: Platform, one: Fault) -> Told:
    """Make a fault, wait for its alert, repair it, wait for the all-clear; nothing else may be told."""
    subject = one.subject or one.name
    began = time.time()
    try:
        steps = one.act(platform, one.name)
        broken = next(steps)
        fired = platform.webhooks.wait(one.alert, subject, "firing", began, PATIENCE)
        repairing = time.time()
        next(steps)
        cleared = platform.webhooks.wait(one.alert, subject, "resolved", fired, PATIENCE)
        resolved = cleared - repairing
        next(steps, None)
        told = {name for each in {subject, one.name} for name in platform.webhooks.firing(each, began)}
        wrong = told - {one.alert} - set(one.also)
        require(not wrong, f"also told: {', '.join(sorted(wrong))}")
        return Told(one.alert, fired - broken, resolved)
    finally:
        platform.forget(one.name)
