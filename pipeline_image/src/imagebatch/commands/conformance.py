"""The command `conformance`: hold any model server to what a run relies on, and tell what was found."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shlex
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from imagebatch.commands.prepared_run import PreparedRun, prepared_run, score_settings
from imagebatch.commands.verify import verify
from imagebatch.conformance import (
    CHECKS,
    UNDER_LOAD,
    Check,
    Finding,
    NotKeptError,
    Outcome,
    Subject,
    found,
)
from imagebatch.conformance.pictures import drawn
from imagebatch.conformance.told import Told
from imagebatch.errors import (
    ConfigurationError,
    DataRefusedError,
    ModelApiUnavailableError,
    StorageError,
    one_line,
)
from imagebatch.inputs.source import image_source
from imagebatch.log import get_logger
from imagebatch.measure import read_sample
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.address import shown
from imagebatch.model_apis.base import ApiFaultError, Fault, ModelApi
from imagebatch.settings import (
    ConformanceSettings,
    MeasuringSettings,
    PostprocessSettings,
    VerifySettings,
)
from imagebatch.stages.postprocess import postprocess
from imagebatch.stages.score import score

log = get_logger()

_FEWEST = 2
# Requests of these do not carry the model's name; `http` says it where its template does.
NAMELESS = {"local", "mlflow"}
_OF_AN_IMAGE = {Fault.WORKER_DIED, Fault.BAD_REPLY}


@dataclass(frozen=True, slots=True)
class Conformance:
    """The result: what was found, and the file that tells it, if one was asked for."""

    told: Told
    out: str

    def as_json(self) -> dict[str, Any]:
        """Return the counts for the command's last line."""
        counts = {outcome.value: self.told.count(outcome) for outcome in Outcome}
        return counts | ({"out": self.out} if self.out else {})


def conformance(settings: ConformanceSettings) -> Conformance:
    """Carry out every check, print the table, and write it where that is asked for.

    Raises:
        DataRefusedError: A check failed.
        ConfigurationError: The server does not serve the model, or nothing can be checked with its images.
        ModelApiUnavailableError: It does not answer.
        StorageError: The file cannot be written.
    """
    if settings.out:
        _write(Path(settings.out), "")
    with contextlib.ExitStack() as stack:
        measuring = _measuring(settings, stack)
        run = stack.enter_context(prepared_run(measuring))
        subject = _subject(settings, measuring, run, stack)
        whole = Check(
            "whole run", "A run of the images loses none, and is proven.", partial(_whole_run, measuring, run)
        )
        findings = [_carried_out(check, subject) for check in (*CHECKS, whole, *UNDER_LOAD)]
    urls = [shown(url) for url in settings.api_url.split(",")] if subject.api.has_server else ["this machine"]
    when = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = Told(settings.backend, urls, subject.pin, when, findings)
    print(told.as_table())  # noqa: T201 (what the command is for)
    if settings.out:
        content = told.as_markdown() if settings.out.endswith(".md") else told.as_json()
        _write(Path(settings.out), content)
    result = Conformance(told, settings.out)
    failed = [finding for finding in findings if finding.outcome is Outcome.FAILED]
    if failed:
        print(json.dumps(result.as_json()))  # noqa: T201 (the last line, as of a command that succeeds)
        first = f"{failed[0].check} ({failed[0].seen})"
        raise DataRefusedError(
            f"{len(failed)} of {len(findings)} checks failed: {first}{_others(failed[1:])}"
        )
    return result


def _others(failed: list[Finding]) -> str:
    return "".join(f", {finding.check}" for finding in failed)


def _carried_out(check: Check, subject: Subject) -> Finding:
    finding = found(check, subject)
    log.info("check", check=finding.check, outcome=finding.outcome.value, seen=finding.seen)
    return finding


def _measuring(settings: ConformanceSettings, stack: contextlib.ExitStack) -> MeasuringSettings:
    """Return the settings of a run over the user's images, or over drawn ones."""
    source = settings.input
    if not source:
        source = stack.enter_context(tempfile.TemporaryDirectory(prefix="imagebatch-conformance-"))
        for number, image in enumerate(drawn(settings.limit)):
            (Path(source) / f"{number:03}.jpg").write_bytes(image)
    # A run of these images alone, whatever the variables say of other runs.
    listed = {"input": source, "manifest": "", "query": "", "allowed_roots": ""}
    judged = {"max_failures": "100%", "max_class_share": 1, "max_consecutive_failures": 0}
    return settings.part(MeasuringSettings, **listed, **judged, in_flight=max(1, settings.most))


def _subject(
    settings: ConformanceSettings,
    measuring: MeasuringSettings,
    run: PreparedRun,
    stack: contextlib.ExitStack,
) -> Subject:
    """Open the model API, and choose the images that the model can read."""

    def connect(model: str) -> ModelApi:
        return open_backend(settings.backend, settings, model, settings.model_version)

    api = connect(settings.model)
    stack.callback(api.close)
    images = [image.data for image in read_sample(run.uris, image_source(measuring))]
    subject = Subject(
        connect=connect,
        api=api,
        pin=run.description.model,
        images=images,
        top_k=run.description.top_k,
        names_models=_names_models(settings),
        most=settings.most,
        largest=settings.largest,
        patience=settings.retry_seconds,
        restart=partial(_restart, settings) if settings.restart_command else None,
    )
    try:
        pin = api.describe()
        readable = [image for image in images if _reads(subject, image)]
    except ApiFaultError as fault:
        raise ModelApiUnavailableError(f"the model server does not answer: {fault}") from fault
    if len(readable) < _FEWEST:
        raise ConfigurationError(
            f"the model reads {len(readable)} of {len(images)} images: give some that it can read by --input"
        )
    return replace(subject, pin=pin, images=readable)


def _reads(subject: Subject, image: bytes) -> bool:
    try:
        return not subject.alone(image).reason
    except ApiFaultError as fault:
        if fault.fault in _OF_AN_IMAGE:
            return False
        raise


def _names_models(settings: ConformanceSettings) -> bool:
    if settings.backend == "http":
        with contextlib.suppress(OSError):
            return "$model" in Path(settings.request_template).read_text("utf-8")
    return settings.backend not in NAMELESS


def _whole_run(measuring: MeasuringSettings, run: PreparedRun, subject: Subject) -> str:
    """Score a copy of the prepared run, finish it, and prove it."""
    run.copy("whole")
    place = {"run_id": "whole", "runs_uri": str(run.folder), "metrics_url": ""}
    scored = score(score_settings(measuring, run.folder, "whole"))
    counts = postprocess(measuring.part(PostprocessSettings, **place)).counts
    verify(measuring.part(VerifySettings, **place))
    predicted = sum(shard.predicted for shard in scored)
    if predicted < len(subject.images):
        raise NotKeptError(f"{predicted} of {len(subject.images)} images that the model reads are predicted")
    return (
        f"{counts.predicted} predicted, {counts.failed} failed, {counts.rejected} rejected of {counts.listed}"
    )


def _restart(settings: ConformanceSettings) -> None:
    """Run the user's command; what it prints goes into the error if it fails."""
    argv = shlex.split(settings.restart_command)
    try:
        done = subprocess.run(  # noqa: S603 (the user's own command line, and no shell)
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=settings.retry_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotKeptError(f"--restart-command: {error}") from error
    if done.returncode:
        said = one_line(done.stderr or done.stdout, 160)
        raise NotKeptError(f"--restart-command ended with {done.returncode}: {said}")


def _write(path: Path, content: str) -> None:
    """Replace a file as a whole; with no content, only see whether that will be possible."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        beside.write_text(content, "utf-8")
        if content:
            beside.replace(path)
        else:
            beside.unlink()
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"--out {path}: {error}") from error
