"""The command line: parse, call a stage, print one line of JSON, exit with its code.

`commands` lists what can be called. `flags` of `imagebatch.settings` describes what a command takes, `parser`
reads it, `help` prints it, and `reference` writes it into docs/reference/protocol.md.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from imagebatch import __version__, log, settings
from imagebatch.cli.commands import COMMANDS
from imagebatch.cli.help import overview
from imagebatch.cli.parser import nearest, parsed
from imagebatch.cli.result_files import write_result_files
from imagebatch.cli.unforeseen import unforeseen
from imagebatch.cli.warm import keep_warm
from imagebatch.contracts.account import OTHER_SUFFIXES
from imagebatch.contracts.records import PROTOCOL_VERSION
from imagebatch.errors import (
    ExitCode,
    ImagebatchError,
    NothingToDoError,
    StorageError,
    UsageError,
    one_line,
)
from imagebatch.settings.flags import summary

__all__ = ["COMMANDS", "call", "main", "parse"]

_LONGEST_LINE = 2000


def main() -> None:
    """Run the command that the process was started with, and end the process."""
    code = call(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    # Everything is written and closed, so the interpreter's teardown is skipped. On a crowded machine it
    # ended commands that had done their work with SIGABRT now and then (C++'s terminate, exit code -6), with
    # pyarrow 26.0.1 on Python 3.11. Of the libraries that a stage loads, only Arrow starts C++ threads, and
    # it is known for this: a thread that asks for the interpreter lock during the teardown is ended by
    # pthread_exit, which C++ answers with terminate (apache/arrow#34314; python/cpython#87135, changed in
    # Python 3.14), or it waits for ever (apache/arrow#50482). It is rare: on two cores under a load of 8 to
    # 15, 50 stages and 800 reads of a listing through a Python file all ended well without this line.
    os._exit(code)


def call(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: As after the program's name. `--parse-only` before the command only checks what follows.
            `--keep-warm` in place of a command waits for others to be asked for (`imagebatch.cli.warm`).

    Returns:
        The exit code.
    """
    name, asked = "", None
    try:
        if list(arguments[:1]) == ["--keep-warm"]:
            keep_warm(list(arguments[1:]), main)
            return int(ExitCode.OK)
        parse_only = list(arguments[:1]) == ["--parse-only"]
        name, asked = parse(arguments[1:] if parse_only else arguments)
        if not parse_only:
            _execute(name, asked)
    except ImagebatchError as error:
        print(f"imagebatch: {error}", file=sys.stderr)  # noqa: T201 (the one-line error is the interface)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 (nothing ends with a traceback: the details are kept in a file)
        print(f"imagebatch: {unforeseen(error, name, asked)}", file=sys.stderr)  # noqa: T201 (the interface)
        return int(ExitCode.UNFORESEEN)
    return int(ExitCode.OK)


def parse(arguments: Sequence[str]) -> tuple[str, settings.CommonSettings]:
    """Read a command's name and its settings, from flags and `IMAGEBATCH_*` variables.

    Raises:
        UsageError: Unknown command, unknown flag, or a value out of range.
    """
    name = arguments[0] if arguments else "--help"
    if name in {"-h", "--help", "help"}:
        print(_overview())  # noqa: T201 (asked for)
        sys.exit(0)
    if name == "--version":
        print(f"imagebatch {__version__} protocol {PROTOCOL_VERSION}")  # noqa: T201 (asked for)
        sys.exit(0)
    if name not in COMMANDS:
        raise UsageError(f"no command {name}; {nearest(name, list(COMMANDS)) or _all_commands()}")
    try:
        return name, parsed(COMMANDS[name].settings, name, arguments[1:])
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from error
    except SettingsError as error:
        raise UsageError(f"{error}; see imagebatch {name} --help") from error


def _execute(name: str, asked: settings.CommonSettings) -> None:
    command = COMMANDS[name]
    log.configure(asked.log_level)
    function = getattr(importlib.import_module(command.module), command.function)
    known = {"run_id": asked.run_id} if isinstance(asked, settings.RunSettings) else {}
    try:
        result = command.summarize(asked, function(asked))
    except NothingToDoError as nothing:
        result = _of_nothing(name, asked, known, nothing)
    content = known | {"stage": name} | result
    write_result_files(asked.result_files, content)
    try:
        print(_last_line(content), flush=True)  # noqa: T201 (the protocol's last line)
    except OSError as error:  # its disk is full, or whoever was to read it has gone
        raise StorageError(f"{name} is done, but its result cannot be written: {error.strerror}") from error


def _of_nothing(
    name: str, asked: settings.CommonSettings, known: dict[str, Any], nothing: NothingToDoError
) -> dict[str, Any]:
    """Return what a command tells that found nothing to do, where that may end with 0.

    Raises:
        NothingToDoError: It may not; files that are wanted of preprocess are written.
    """
    counts = dict.fromkeys(("listed", "accepted", "rejected", "shards"), 0) if name == "preprocess" else {}
    result = {"nothing_to_do": str(nothing)} | counts
    if isinstance(asked, settings.InputSettings) and asked.nothing_to_do_code == "0":
        return result
    if name == "preprocess":
        write_result_files(asked.result_files, known | {"stage": name} | result)
    raise nothing


def _last_line(content: dict[str, Any]) -> str:
    line = json.dumps(content)
    if len(line) > _LONGEST_LINE and "left_out" in content:  # the certificate has it by suffix
        counts = content["left_out"].items()
        content |= {"left_out": {reason: {OTHER_SUFFIXES: sum(found.values())} for reason, found in counts}}
        line = json.dumps(content)
    if len(line) > _LONGEST_LINE and "answer" not in content:
        content = {
            key: one_line(value, 100) if isinstance(value, str) else value for key, value in content.items()
        }
        line = json.dumps(content)
    return line


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    flag = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else ""
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{flag} is required"
    return f"{flag} {one_line(problem['input'], 80)}: {text}" if flag else text


def _all_commands() -> str:
    return f"there are {', '.join(COMMANDS)}"


def _overview() -> str:
    sections: dict[str, dict[str, str]] = {}
    for name, command in COMMANDS.items():
        sections.setdefault(command.section, {})[name] = summary(command.settings)
    return overview(sections)
