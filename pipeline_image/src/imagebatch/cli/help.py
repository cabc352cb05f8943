"""What `imagebatch --help` and `imagebatch COMMAND --help` print, made from the settings classes."""

from __future__ import annotations

import shutil
import textwrap

from imagebatch.settings import CommonSettings
from imagebatch.settings.flags import ONE_OF, REQUIRED, Flag, groups, summary

# Longer lines are hard to read on any screen; in shorter ones there is no room for sentences.
_NARROWEST, _WIDEST = 40, 100
_SENTENCES_AT = 28  # at most: they begin in the first third of a narrow line

_NO_BREAK = "\N{NO-BREAK SPACE}"  # never printed: `_filled` makes a common space of it
_VARIABLES = (
    "Each flag is also an environment variable: --log-level is IMAGEBATCH_LOG_LEVEL, and a flag with --no- is"
    " true or false there. A flag wins over its variable, and both over a settings file."
)
_OVERVIEW_USAGE = """\
usage: imagebatch COMMAND [flags]
       imagebatch COMMAND --help
       imagebatch --parse-only COMMAND [flags]
       imagebatch --version"""
_OVERVIEW_END = (
    "--parse-only checks a command's flags and does nothing else. A command that has done its work prints one"
    " JSON object as its last line and ends with code 0."
)


def command_help(command: str, kind: type[CommonSettings]) -> str:
    """Describe one command and all its flags, as wide as the terminal.

    Args:
        command: Its name.
        kind: Its settings.
    """
    width = _width()
    titled = groups(kind)
    paragraphs = [_usage(command, titled, width), _filled(summary(kind), width)]
    for title, flags in titled.items():
        entries = [_entry(flag.typed, _sentence(flag), width) for flag in flags]
        paragraphs.append("\n".join([_filled(f"{title.removesuffix('.')}:", width), *entries]))
    return "\n\n".join([*paragraphs, _filled(_VARIABLES, width)]) + "\n"


def overview(sections: dict[str, dict[str, str]]) -> str:
    """Describe the whole command line.

    Args:
        sections: By title, commands and what each does.
    """
    width = _width()
    longest = max(len(name) for commands in sections.values() for name in commands)
    about = "Score images in bulk with a served model, and prove that none was lost."
    paragraphs = [_OVERVIEW_USAGE, _filled(about, width)]
    for title, commands in sections.items():
        entries = [_entry(name, sentence, width, longest + 4) for name, sentence in commands.items()]
        paragraphs.append("\n".join([f"{title}:", *entries]))
    return "\n\n".join([*paragraphs, _filled(_OVERVIEW_END, width)])


def _usage(command: str, titled: dict[str, list[Flag]], width: int) -> str:
    words = [flag.typed for flag in titled.get(REQUIRED, [])]
    if ONE_OF in titled:
        words.append(f"({' | '.join(flag.typed for flag in titled[ONE_OF])})")
    start = f"usage: imagebatch {command}"
    return _filled(" ".join([start, *words, "[flags]"]), width, later=len(start) + 1)


def _sentence(flag: Flag) -> str:
    return f"{flag.sentence} (default:{_NO_BREAK}{flag.default})" if flag.default else flag.sentence


def _entry(name: str, sentence: str, width: int, at: int = _SENTENCES_AT) -> str:
    """Write a name, and its sentence beside it, or below where the name is too long for that."""
    at = min(at, width // 3)
    start = f"  {name}"
    text = _filled(sentence, width, first=at, later=at)
    return f"{start}\n{text}" if len(start) > at - 2 else start + text[len(start) :]


def _filled(text: str, width: int, *, first: int = 0, later: int = 0) -> str:
    """Break text into lines, never within a flag's name.

    Args:
        text: What to break.
        width: Most characters of a line, unless one word is longer.
        first: Spaces before the first line.
        later: Spaces before all others.
    """
    lines = textwrap.fill(
        text,
        width,
        initial_indent=" " * first,
        subsequent_indent=" " * later,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines.replace(_NO_BREAK, " ")


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)
