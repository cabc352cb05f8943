"""A command in a process of its own that is killed just before its n-th change of a folder.

The process is forked by a server without threads: a copy of the tests' own process, whose threads serve
requests, could inherit a lock that nobody releases.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from imagebatch import cli

CHANGES = {"os.rename", "os.link", "os.remove"}
# What numpy and Arrow would start a thread for as soon as they are imported.
WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
PRELOADED = [
    "imagebatch.cli",
    "imagebatch.commands.redrive",
    "imagebatch.model_apis.torchserve",
    "imagebatch.stages.postprocess",
    "imagebatch.stages.preprocess",
    "imagebatch.stages.score",
]


def call(*arguments: str) -> tuple[int, str]:
    """Call a command in this process.

    Returns:
        Its exit code and standard error.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.call(arguments)
    return code, err.getvalue()


def killed(change: int, prepare: Callable[[], None], arguments: Sequence[str]) -> tuple[int, str]:
    """Call a command in a process that is killed just before its n-th change of a folder.

    Args:
        change: The n.
        prepare: A module's function, called in the process before the command.
        arguments: The command.

    Returns:
        As `call`, if the command makes fewer changes; else the process's exit code, and nothing.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith("IMAGEBATCH_")}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_die_at, args=(change, prepare, own, tuple(arguments), sender))
    with pytest.MonkeyPatch.context() as patch:  # the first start starts the server
        for name, value in WITHOUT_THREADS.items():
            patch.setenv(name, value)
        process.start()
    sender.close()
    with receiver:
        try:
            ended: tuple[int, str] = receiver.recv()
        except EOFError:  # it died before it could say
            process.join()
            ended = (process.exitcode or 0, "")
    process.join()
    return ended


def _die_at(
    change: int,
    prepare: Callable[[], None],
    own: dict[str, str],
    arguments: tuple[str, ...],
    sender: Connection,
) -> None:
    threads = len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))
    assert threads == 1, f"the process that forks has {threads} threads"
    left = [change]

    def count(event: str, _: object) -> None:
        if event in CHANGES:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.dont_write_bytecode = True  # a module that is compiled would count as a change
    os.environ.update(own)
    prepare()
    sys.addaudithook(count)
    sender.send(call(*arguments))
