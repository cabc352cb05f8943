"""The stage at work in this process, and who is told what it does.

A stage's function is decorated with `observed`. What it does it tells by a `Progress`, or by
`current().metrics.show(...)`; its observers pass that on:

    Progress ──► Stage ──┬──► StageMetrics   the values that Prometheus sees (`Pushing` sends them)
                         ├──► Recording      the times and counts kept in the run's `telemetry/stages/`
                         └──► Bar            a bar on a terminal, a line every few seconds in a log

Where no stage is observed (`imagebatch bench` scores a copy of a run), what is told is thrown away.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from imagebatch.observe import metrics
from imagebatch.observe.push import Pushing
from imagebatch.observe.stage_metrics import StageMetrics
from imagebatch.observe.timeline import Recording
from imagebatch.settings import RunSettings

S = TypeVar("S", bound=RunSettings)
R = TypeVar("R")
P = ParamSpec("P")


class Observer(Protocol):
    """Is told what a stage does. One call at a time."""

    def expect(self, images: int) -> None:
        """Note that the stage has `images` more to do with."""

    def advance(self, images: int, failed: int, *, earlier: bool) -> None:
        """Note that `images` more are done, `failed` of them without a prediction.

        Those of an `earlier` attempt tell nothing about speed.
        """

    def end(self, error: BaseException | None) -> None:
        """Note that the stage has ended, by an error or well."""


class Stage:
    """The stage at work.

    Args:
        shown: What Prometheus sees. A stage inside another one (a redrive ends with postprocess) adds to what
            the outer one shows.
        own: Observers that begin and end with this stage.

    Attributes:
        metrics: What Prometheus sees.
    """

    def __init__(self, shown: StageMetrics, own: Sequence[Observer] = ()) -> None:
        self.metrics = shown
        self._own = own

    @property
    def observers(self) -> list[Observer]:
        """Whoever is to be told of progress."""
        own = [observer for observer in self._own if observer is not self.metrics]
        return [self.metrics, *own]

    @property
    def shows(self) -> bool:
        """Whether what Prometheus sees began with this stage."""
        return any(observer is self.metrics for observer in self._own)

    def end(self, error: BaseException | None) -> None:
        """Tell this stage's own observers that it has ended."""
        for observer in self._own:
            observer.end(error)


_current: ContextVar[Stage | None] = ContextVar("imagebatch_stage", default=None)


def current() -> Stage:
    """Return the stage at work; one that nobody observes if there is none."""
    return _current.get() or Stage(StageMetrics())


def observed(
    command: str, *, title: Callable[[Any], str] | None = None, recorded: bool = True, shown: bool = True
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Decorate a stage's function, so that every attempt at it is observed.

    Args:
        command: Of `imagebatch`; the stage's name in Prometheus.
        title: Names the attempt in the run's records, from its settings; the command if not given.
        recorded: Keep its times in the run.
        shown: Show it to Prometheus, if a Pushgateway is set.
    """

    def decorate(work: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(work)
        def call(settings: S, /, *more: P.args, **named: P.kwargs) -> R:
            own: list[Observer] = []
            outer = _current.get()
            values = outer.metrics if outer else StageMetrics()
            if recorded:
                own.append(Recording(title(settings) if title else command, settings))
            if shown and not (outer and outer.shows):
                values = _begun(command, settings)
                own.append(values)
                if settings.metrics_url:
                    own.append(Pushing(command, settings, values))
            stage = Stage(values, own)
            token = _current.set(stage)
            failure: BaseException | None = None
            try:
                return work(settings, *more, **named)
            except BaseException as error:
                failure = error
                raise
            finally:
                _current.reset(token)
                stage.end(failure)

        return call

    return decorate


def _begun(command: str, settings: RunSettings) -> StageMetrics:
    values = StageMetrics()
    values.due(metrics.NEXT_RUN, settings.next_run)
    values.due(metrics.RUN_DEADLINE, getattr(settings, "deadline", None))
    if command == "preprocess":  # the first stage of a run
        values.show(metrics.RUN_START, values.started)
    return values
