"""Which night a run is about, so that a past one, or a trial, does not speak as if it were tonight's.

What watches a pipeline (metrics, alerts, `history`) knows its newest run only. A backfill, a run of last week
that is cleared, a trial with 30 images: each would set tonight's figures and times. They carry names of their
own.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from croniter import croniter

from imagebatch_dags.asked import DATE, Asked
from imagebatch_dags.pipeline import PAST, TRIAL, Pipeline

# A run by hand that changes one of these is about something else than the pipeline's night.
SHAPING = ("input", "manifest", "include", "limit", "model", "model_version")
SCHEDULED, MANUAL = "scheduled", "manual"


class Night:
    """What the runs of one pipeline say about time; its methods are macros.

    Args:
        pipeline: whose DAG it is.
        asked: the values of its runs.
    """

    def __init__(self, pipeline: Pipeline, asked: Asked) -> None:
        self._pipeline = pipeline
        self._asked = asked

    def speaks_as(self, dag_run: Any, params: Mapping[str, Any]) -> str:
        """Name the pipeline that a run's metrics and figures are about.

        Args:
            dag_run: of the task's context.
            params: of the task's context.

        Returns:
            The DAG's id; with `.past` where a later run was due before this one began, with `.trial` where a
            run by hand has another input, limit or model than the pipeline.
        """
        name = self._pipeline.dag_id
        if self.is_past(dag_run, params):
            return name + PAST
        if dag_run.run_type == MANUAL and self._asked.is_changed(params, SHAPING):
            return name + TRIAL
        return name

    def is_past(self, dag_run: Any, params: Mapping[str, Any]) -> bool:
        """Tell whether a later run was due when this one began, or began again after it was cleared."""
        due = self._due(dag_run, params)
        return bool(self._pipeline.schedule) and self._after(due) <= _begun(dag_run)

    def next_run(self, dag_run: Any, params: Mapping[str, Any]) -> str:
        """Tell when the run after this one is due, so that its absence is noticed.

        Returns:
            ISO 8601, with its offset; empty where all runs are by hand, and in one that is not tonight's.
        """
        if not self._pipeline.schedule or self.speaks_as(dag_run, params) != self._pipeline.dag_id:
            return ""
        return self._after(max(self._due(dag_run, params), dag_run.run_after)).isoformat()

    def deadline_of(self, dag_run: Any, params: Mapping[str, Any]) -> str:
        """Tell when a run is late, for the progress that a stage logs.

        Returns:
            ISO 8601, with its offset: counted from the time that a scheduled run was due; for one that is
            past, cleared, or made by hand, from its beginning.
        """
        as_due = (
            dag_run.run_type == SCHEDULED and not dag_run.clear_number and not self.is_past(dag_run, params)
        )
        begun = dag_run.run_after if as_due else _begun(dag_run)
        deadline: datetime = begun + timedelta(minutes=self._pipeline.late_after_minutes)
        return deadline.isoformat()

    def _due(self, dag_run: Any, params: Mapping[str, Any]) -> datetime:
        night = self._asked.night(params, dag_run)
        if night and params.get(DATE):
            return night + timedelta(days=1, seconds=-1)  # whatever was due on that day
        due: datetime = night or dag_run.run_after
        return due

    def _after(self, due: datetime) -> datetime:
        following: datetime = croniter(self._pipeline.schedule, due).get_next(datetime)
        return following


def _begun(dag_run: Any) -> datetime:
    begun: datetime = dag_run.start_date or datetime.now(UTC)
    return begun
