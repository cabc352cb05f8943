"""What nobody has foreseen: one line that says where its details are, and never a traceback on a terminal."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
import uuid
from datetime import UTC, datetime
from pathlib import Path

from imagebatch import __version__
from imagebatch.contracts.layout import ERRORS, RUN_JSON
from imagebatch.errors import one_line
from imagebatch.runs.folder import open_run
from imagebatch.settings import CommonSettings, RunSettings


def unforeseen(error: Exception, command: str, settings: CommonSettings | None) -> str:
    """Keep an error's details in a file, and say in one line what happened and where they are.

    Args:
        error: No `ImagebatchError`.
        command: That met it; empty if it was not known yet.
        settings: Of the command, if they were read.

    Returns:
        The line. The file is in the run's `telemetry/errors/` if the command has a run that can be written,
        else in the folder for temporary files, readable by this user only.
    """
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    text = f"imagebatch {__version__} {command}, Python {sys.version.split()[0]}, {now}\n\n"
    details = (text + "".join(traceback.format_exception(error))).encode("utf-8", "replace")
    name = f"{now}-{command or 'start'}-{uuid.uuid4().hex[:8]}.txt"
    place = _kept_in_run(settings, name, details) or _kept_here(name, details)
    happened = one_line(f"{type(error).__name__}: {error}", 200)
    return (
        f"{command or 'the command'} met what it does not expect: {happened} (at {_last_line(error)});"
        f" {f'details in {place}' if place else 'its details could not be written'}"
    )


def _last_line(error: Exception) -> str:
    """Name the line of imagebatch's own code at which the error was raised or let through."""
    own = Path(__file__).parent.parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(own):
            return f"{path.relative_to(own)}:{frame.lineno}"
    return "the start"


def _kept_in_run(settings: CommonSettings | None, name: str, details: bytes) -> str:
    if not isinstance(settings, RunSettings):
        return ""
    try:
        run = open_run(settings.runs_uri, settings.run_id)
        if not run.exists(RUN_JSON):  # a run that was never begun gets no folder
            return ""
        run.write(f"{ERRORS}/{name}", details)
    except Exception:  # noqa: BLE001 (this is the way out: the folder for temporary files is next)
        return ""
    return f"{run.uri}/{ERRORS}/{name}"


def _kept_here(name: str, details: bytes) -> str:
    try:
        descriptor, path = tempfile.mkstemp(prefix="imagebatch-", suffix=f"-{name}")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(details)
    except OSError:
        return ""
    return path
