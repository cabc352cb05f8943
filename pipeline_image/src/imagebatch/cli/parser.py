"""Parse a command's flags with pydantic-settings, with help and errors of our own."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic_settings import CliSettingsSource
from typing_extensions import override

from imagebatch.cli.help import command_help
from imagebatch.errors import UsageError
from imagebatch.settings import CommonSettings
from imagebatch.settings.flags import flags


class Parser(argparse.ArgumentParser):
    """The parser that pydantic-settings adds a command's settings to.

    Args:
        kind: The command's settings.
        command: Its name.
    """

    def __init__(self, kind: type[CommonSettings], command: str) -> None:
        super().__init__(prog=f"imagebatch {command}", allow_abbrev=False)
        self._kind = kind
        self._command = command
        self._see = f"see {self.prog} --help"

    @override
    def format_help(self) -> str:
        return command_help(self._command, self._kind)

    @override
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self._see}")

    def parse_known(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse arguments of which each must be known.

        Raises:
            UsageError: One is not; the text proposes the flag that looks most like it.
        """
        namespace, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [option for flag in flags(self._kind) for option in flag.options]
            near = nearest(unknown[0].partition("=")[0], known)
            raise UsageError(f"unrecognized arguments: {' '.join(unknown)}; {near or self._see}")
        return namespace


def parsed(kind: type[CommonSettings], command: str, arguments: Sequence[str]) -> CommonSettings:
    """Read a command's settings from its flags and, where they are silent, from variables and settings file.

    Raises:
        UsageError: An unknown flag, or one without its value.
        ValidationError: A value is missing or out of range.
        SettingsError: A variable cannot be read.
    """
    source: CliSettingsSource[Parser] = CliSettingsSource(
        kind, root_parser=Parser(kind, command), parse_args_method=Parser.parse_known
    )
    settings: Any = kind  # the base class takes this argument where mypy cannot see it
    read: CommonSettings = settings(_cli_settings_source=source(args=list(arguments)))
    return read


def nearest(typed: str, known: Sequence[str]) -> str:
    """Ask about the name that looks most like a mistyped one; say nothing if none does."""
    found = difflib.get_close_matches(typed, known, n=1, cutoff=0.7)
    return f"did you mean {found[0]}?" if found else ""
