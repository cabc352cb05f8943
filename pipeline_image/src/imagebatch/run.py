"""All stages in one process, without an orchestrator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pydantic import BaseModel

from imagebatch.certificate import Certificate
from imagebatch.imagery.decoders import Decoders
from imagebatch.imagery.sample import image_sample
from imagebatch.ledger import read_description
from imagebatch.metrics_push import measured
from imagebatch.postprocess import postprocess
from imagebatch.preprocess import preprocess
from imagebatch.quality.process import CheckProcess
from imagebatch.score import score
from imagebatch.settings import (
    CheckSettings,
    CommonSettings,
    PostprocessSettings,
    PreprocessSettings,
    ReportSettings,
    ScoreSettings,
    WholeRunSettings,
)
from imagebatch.storage.runs import open_run

S = TypeVar("S", bound=CommonSettings)


def run(settings: WholeRunSettings) -> Certificate:
    """Does what the DAG does, in the same order and with the same files."""
    with CheckProcess(settings.log_level) as checks:
        measured("preprocess", _part(settings, PreprocessSettings), preprocess)
        checks.check(_part(settings, CheckSettings, suite="manifest"))
        # Embeddings are for the report alone.
        wanted = {} if settings.report else {"embeddings": 0}
        measured("score", _part(settings, ScoreSettings, shard=-1, **wanted), score)
        # The check keeps one core busy: images are looked at on the others meanwhile.
        with ThreadPoolExecutor(1) as beside:
            if settings.report:
                beside.submit(_look, _part(settings, ReportSettings))
            checks.check(_part(settings, CheckSettings, suite="predictions"))
    certificate = measured("postprocess", _part(settings, PostprocessSettings), postprocess)
    if settings.report:
        from imagebatch.report import report_if_possible  # noqa: PLC0415 (a fifth of a second, and not for all)

        report_if_possible(_part(settings, ReportSettings))
    return certificate


def _look(settings: ReportSettings) -> None:
    """Takes the sample of images that the report will find; if it cannot, the report says so."""
    run = open_run(settings.runs_uri, settings.run_id)
    with Decoders() as decoders:
        image_sample(run, read_description(run), settings.image_sample, decoders)


def _part(settings: BaseModel, kind: type[S], **more: object) -> S:
    """The settings of one stage, out of those of the whole run."""
    return kind(**settings.model_dump(include=set(kind.model_fields)) | more)
