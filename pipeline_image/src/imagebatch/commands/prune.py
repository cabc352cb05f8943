"""The command `prune`: remove old runs, and temporary files that killed processes left in the others."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from imagebatch.errors import RunHeldError, StorageError
from imagebatch.log import get_logger
from imagebatch.runs.at_work import AT_WORK_SECONDS
from imagebatch.runs.retention import RunsRoot, StoredRun, open_runs
from imagebatch.settings import PruneSettings

log = get_logger()

_DAY = 86_400.0
# 2026-01-31, 2026/01/31, 20260131, and the like.
_DAY_IN_NAME = re.compile(
    r"(?<!\d)(?:19|20)\d\d(?P<between>[-/_.]?)(?:0[1-9]|1[0-2])(?P=between)(?:0[1-9]|[12]\d|3[01])(?!\d)"
)


@dataclass(slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        removed: Runs removed.
        kept: Runs that stay, the unfinished ones among them.
        unfinished: Runs that stay because they have not finished, old as they may be.
        temporary: Files of killed processes, older than a day.
        bytes: Size of everything removed.
        dry_run: Nothing was removed; the numbers say what would be.
    """

    removed: int = 0
    kept: int = 0
    unfinished: int = 0
    temporary: int = 0
    bytes: int = 0
    dry_run: bool = False


def prune(settings: PruneSettings) -> Pruned:
    """Remove every finished run that was last written to more than `keep_days` days ago.

    Three kinds of runs always stay: the newest success of each input (whatever its date) and model, runs
    written to within the last hour, and, unless `unfinished` is set, runs that have not succeeded, because
    they may be continued.

    Raises:
        ConfigurationError: There is no such folder.
        StorageError: Something could not be removed; the rest was.
    """
    root = open_runs(settings.runs_uri)
    now = time.time()
    runs = sorted(root.runs(), key=lambda run: run.name)
    newest = _newest_successes(root, runs)
    done = Pruned(dry_run=settings.dry_run)
    problems: list[str] = []
    for run in runs:
        try:
            if run.removed_by_half or (run.name not in newest and _old(run, settings, now)):
                _remove(root, run, done, now)
            else:
                _keep(root, run, done, now)
        except RunHeldError as error:
            log.info("not removed", run_id=run.name, reason=str(error))
            _keep(root, run, done, now)
        except StorageError as error:
            problems.append(str(error))
            log.warning("not removed", run_id=run.name, reason=str(error))
    if problems:
        raise StorageError(f"{len(problems)} runs could not be pruned, the others were; first: {problems[0]}")
    return done


def _old(run: StoredRun, settings: PruneSettings, now: float) -> bool:
    if run.finished is None and not settings.unfinished:
        return False
    return now - run.modified > max(settings.keep_days * _DAY, AT_WORK_SECONDS)


def _newest_successes(root: RunsRoot, runs: Iterable[StoredRun]) -> set[str]:
    newest: dict[tuple[str, ...], StoredRun] = {}
    for run in runs:
        if run.finished is None or run.removed_by_half:
            continue
        purpose = _purpose(root, run.name)
        if purpose not in newest or run.finished > (newest[purpose].finished or 0):
            newest[purpose] = run
    return {run.name for run in newest.values()}


def _purpose(root: RunsRoot, name: str) -> tuple[str, ...]:
    """Return the input and the model, by which runs of the same purpose are recognised.

    Folders that differ in a date alone are one input: of a folder a day each run would be the newest.
    """
    try:
        asked = json.loads(root.description(name))
        sources = (_DAY_IN_NAME.sub("DATE", str(asked[name])) for name in ("input", "manifest"))
        return *sources, str(asked["model"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return (name,)  # unreadable: the only run of its own purpose, and so the newest, which is kept


def _remove(root: RunsRoot, run: StoredRun, done: Pruned, now: float) -> None:
    if not done.dry_run:
        root.remove(run)
    done.removed += 1
    done.bytes += run.size
    log.info(
        "run would be removed" if done.dry_run else "run removed",
        run_id=run.name,
        days=round((now - run.modified) / _DAY, 1),
        bytes=run.size,
        finished=run.finished is not None,
    )


def _keep(root: RunsRoot, run: StoredRun, done: Pruned, now: float) -> None:
    done.kept += 1
    done.unfinished += run.finished is None
    for path, size, modified in run.temporary:
        if now - modified > _DAY:
            if not done.dry_run:
                root.remove_temporary(path)
            done.temporary += 1
            done.bytes += size
            log.info("left by a killed process", path=path, bytes=size)
