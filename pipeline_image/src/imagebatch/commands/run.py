"""The command `run`: all stages in one process, without an orchestrator."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from imagebatch.images.decoders import Decoders
from imagebatch.images.sample import image_sample
from imagebatch.runs.certificate import Certificate
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import open_run
from imagebatch.settings import (
    CheckSettings,
    PostprocessSettings,
    PreprocessSettings,
    ReportSettings,
    ScoreSettings,
    WholeRunSettings,
)
from imagebatch.stages.check.process import CheckProcess
from imagebatch.stages.postprocess import postprocess
from imagebatch.stages.preprocess import preprocess
from imagebatch.stages.score import score


def run(settings: WholeRunSettings) -> Certificate:
    """Do what the DAG does, in the same order and with the same files."""
    with ExitStack() as stack:
        return _run(settings, stack)


def _run(settings: WholeRunSettings, stack: ExitStack) -> Certificate:
    looking: Future[Decoders] | None = None
    with CheckProcess(settings.log_level) as checks:
        preprocess(settings.part(PreprocessSettings))
        checks.check(settings.part(CheckSettings, suite="manifest"))
        # Embeddings are for the report alone.
        wanted = {} if settings.report else {"embeddings": 0}
        score(settings.part(ScoreSettings, shard=-1, **wanted))
        # The check keeps one core busy: images are looked at on the others meanwhile.
        with ThreadPoolExecutor(1) as beside:
            if settings.report:
                looking = beside.submit(_look, settings.part(ReportSettings), stack)
            checks.check(settings.part(CheckSettings, suite="predictions"))
    certificate = postprocess(settings.part(PostprocessSettings))
    if looking:
        from imagebatch.stages.report import report_if_possible  # noqa: PLC0415 (a fifth of a second, and not for all)

        decoders = None if looking.exception() else looking.result()
        report_if_possible(settings.part(ReportSettings), decoders)
    return certificate


def _look(settings: ReportSettings, stack: ExitStack) -> Decoders:
    """Measure the sample of images that the report will use; if that fails, the report says so.

    Returns:
        The decoding processes, which the report uses again for its pictures; they end with `stack`.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    decoders = stack.enter_context(Decoders(spared=1))
    image_sample(run, read_description(run), settings.image_sample, decoders)
    # Load the report's modules now, while this process waits for the check anyway.
    from imagebatch.stages.report.stage import load  # noqa: PLC0415 (a fifth of a second, and not for all)

    load(settings)
    return decoders
