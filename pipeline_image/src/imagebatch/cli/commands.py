"""Every command: what it takes, what it calls, and how its result becomes the last line of output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imagebatch import settings
from imagebatch.contracts.account import account
from imagebatch.contracts.layout import CERTIFICATE, PREDICTIONS_CSV


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand.

    Attributes:
        section: Title in `imagebatch --help` that it stands under.
        settings: What it takes.
        module: Where its function is; imported only when it is called.
        function: Its name.
        summarize: Turns its settings and its result into the last line of output.
    """

    section: str
    settings: type[settings.CommonSettings]
    module: str
    function: str
    summarize: Callable[[Any, Any], dict[str, Any]]


def _plain(_: Any, result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__slots__}


def _plan(_: Any, result: Any) -> dict[str, Any]:
    outcomes = {"accepted": result.accepted, "rejected": result.rejected}
    return dict(result) | {"account": account(outcomes, result.left_out)}


def _scores(_: Any, result: Any) -> dict[str, Any]:
    shard = {"shard": result[0].shard} if len(result) == 1 else {"shards": len(result)}
    return shard | {
        key: sum(getattr(one, key) for one in result) for key in ("predicted", "failed", "resumed")
    }


def _check(_: Any, result: Any) -> dict[str, Any]:
    return {"success": True} | _plain(_, result)


def _certificate(asked: Any, result: Any) -> dict[str, Any]:
    base = f"{asked.runs_uri.rstrip('/')}/{asked.run_id}"
    paths = {"predictions": f"{base}/{PREDICTIONS_CSV}", "certificate": f"{base}/{CERTIFICATE}"}
    model = {"model": result.model.name, "model_version": result.model.version}
    model["model_digest"] = result.model.digest
    told = {"left_out": result.left_out, "account": result.account}
    return {**result.counts.model_dump(), **told, "balanced": result.balanced, **model, **paths}


_STAGES = "Stages of a run, in their order"
_RUNS = "Whole runs"
_LOOKING = "Looking back at runs"
_PEOPLE = "What people say about a run"
_MACHINE = "This machine and its model server"

COMMANDS = {
    "preprocess": Command(
        _STAGES, settings.PreprocessSettings, "imagebatch.stages.preprocess", "preprocess", _plan
    ),
    "check": Command(_STAGES, settings.CheckSettings, "imagebatch.stages.check", "check", _check),
    "score": Command(_STAGES, settings.ScoreSettings, "imagebatch.stages.score", "score", _scores),
    "postprocess": Command(
        _STAGES, settings.PostprocessSettings, "imagebatch.stages.postprocess", "postprocess", _certificate
    ),
    "report": Command(_STAGES, settings.ReportSettings, "imagebatch.stages.report", "report", _plain),
    "run": Command(_RUNS, settings.WholeRunSettings, "imagebatch.commands.run", "run", _certificate),
    "redrive": Command(
        _RUNS, settings.RedriveSettings, "imagebatch.commands.redrive", "redrive", _certificate
    ),
    "verify": Command(_RUNS, settings.VerifySettings, "imagebatch.commands.verify", "verify", _certificate),
    "prune": Command(_RUNS, settings.PruneSettings, "imagebatch.commands.prune", "prune", _plain),
    "baseline": Command(
        _LOOKING, settings.BaselineSettings, "imagebatch.commands.baseline", "baseline", _plain
    ),
    "history": Command(_LOOKING, settings.HistorySettings, "imagebatch.commands.history", "history", _plain),
    "trends": Command(_LOOKING, settings.TrendsSettings, "imagebatch.commands.trends", "trends", _plain),
    "shadow": Command(_LOOKING, settings.ShadowSettings, "imagebatch.commands.shadow", "shadow", _plain),
    "review": Command(_PEOPLE, settings.ReviewSettings, "imagebatch.commands.review", "review", _plain),
    "labels": Command(_PEOPLE, settings.LabelsSettings, "imagebatch.commands.labels", "labels", _plain),
    "bench": Command(
        _MACHINE, settings.BenchSettings, "imagebatch.commands.bench", "bench", lambda _, r: r.as_json()
    ),
    "tune": Command(
        _MACHINE, settings.TuneSettings, "imagebatch.commands.tune", "tune", lambda _, r: r.as_json()
    ),
    "conformance": Command(
        _MACHINE,
        settings.ConformanceSettings,
        "imagebatch.commands.conformance",
        "conformance",
        lambda _, r: r.as_json(),
    ),
    "models": Command(
        _MACHINE, settings.ModelsSettings, "imagebatch.commands.models", "models", lambda _, r: {"answer": r}
    ),
    "doctor": Command(
        _MACHINE, settings.DoctorSettings, "imagebatch.commands.doctor", "doctor", lambda _, r: {"found": r}
    ),
}
