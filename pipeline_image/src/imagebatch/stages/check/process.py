"""Run the checks in a process of their own, which loads Great Expectations while images are being read."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from imagebatch import log
from imagebatch.errors import ImagebatchError, one_line
from imagebatch.settings import CheckSettings
from imagebatch.stages.check.stage import CheckResult, check

_log = log.get_logger()
_GOODBYE = 0.2  # seconds to release its semaphores


class CheckProcess:
    """Another process that checks; it ends with the block, or with this process.

    If Great Expectations is loaded already, no process is started: the checks run in this one.

    Args:
        log_level: Level of the log of that process.
    """

    def __init__(self, log_level: str) -> None:
        self._loaded = "great_expectations" in sys.modules
        if not self._loaded:
            self._start(log_level)

    def _start(self, log_level: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, log_level), daemon=True)
        self._process.start()
        theirs.close()

    def check(self, settings: CheckSettings) -> CheckResult:
        """Do, return and raise what `stages.check.check` does."""
        if self._loaded:
            return check(settings)
        try:
            self._connection.send(settings)
            outcome = self._connection.recv()
        except (EOFError, OSError):
            _log.warning("the process of the checks died: checking in this one", suite=settings.suite)
            return check(settings)
        if isinstance(outcome, BaseException):
            raise outcome
        result: CheckResult = outcome
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._loaded:
            self._connection.close()
            # It sees the end of the connection and releases its semaphores at once. Do not wait until its
            # libraries are taken down: it may still be loading them.
            self._process.join(_GOODBYE)
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, log_level: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both, and the parent decides
    log.configure(log_level)
    with contextlib.suppress(Exception):  # what is wrong is told where the check needs it
        importlib.import_module("imagebatch.stages.check.suites")
        importlib.import_module("imagebatch.stages.check.validation")
    while True:
        try:
            settings: CheckSettings = connection.recv()
        except EOFError:  # the parent has ended
            return
        try:
            outcome: CheckResult | Exception = check(settings)
        except Exception as error:  # noqa: BLE001 (raised again where the check was asked for)
            outcome = sendable(error)
        connection.send(outcome)


def sendable(error: Exception) -> Exception:
    """Return an error that arrives in another process as it is, or what can be said of it, and its traceback.

    Not every error can be pickled, and of one that can its traceback is lost.
    """
    if isinstance(error, ImagebatchError):
        return error
    told = RuntimeError(one_line(f"{type(error).__name__}: {error}"))
    told.add_note(f"In the process of the checks:\n{''.join(traceback.format_exception(error))}")
    return told
