"""Remember which changes were reported already, so that each is reported once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from imagebatch.history.findings import Finding

# More data moves the place of a step by a run or two.
_SAME_STEP = 5


class ReportedChange(BaseModel):
    """A change that was found, as it looked the first time.

    Attributes:
        pipeline: The pipeline whose runs changed.
        figure: What has changed; `kind` and `rises` say how.
        run_id: The run at which it was found. When that run is no longer looked at, the change is forgotten,
            and reported again if it is still there.
        since: The newest run when it was first found.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    pipeline: str
    figure: str
    kind: str
    rises: bool
    run_id: str
    since: str

    @property
    def key(self) -> str:
        """An identifier that stays the same for the same change on every night."""
        return f"{self.pipeline} {self.figure} {self.kind} {'up' if self.rises else 'down'} {self.run_id}"


def remembered(
    before: Iterable[ReportedChange], pipeline: str, found: Sequence[Finding], runs: Sequence[str]
) -> tuple[list[ReportedChange], list[ReportedChange]]:
    """Find each change among those found before.

    Args:
        before: What was found up to now, of any pipeline.
        pipeline: Whose runs these are.
        found: Changes, now.
        runs: Ids of the runs that were looked at, oldest first.

    Returns:
        One entry per finding, in their order; and all that is to be remembered of this pipeline, also what
        was not found this time.
    """
    place = {run_id: at for at, run_id in enumerate(runs)}
    known = [one for one in before if one.pipeline == pipeline and one.run_id in place]
    entries = []
    for finding in found:
        same = next((one for one in known if _same(one, finding, place)), None)
        if same is None:
            same = ReportedChange(
                pipeline=pipeline,
                figure=finding.figure,
                kind=finding.kind,
                rises=finding.rises,
                run_id=finding.run_id,
                since=runs[-1],
            )
            known.append(same)
        entries.append(same)
    return entries, known


def _same(one: ReportedChange, finding: Finding, place: dict[str, int]) -> bool:
    if (one.figure, one.kind, one.rises) != (finding.figure, finding.kind, finding.rises):
        return False
    return finding.kind != "level" or abs(place[one.run_id] - place[finding.run_id]) <= _SAME_STEP
