"""Print the settings of all commands as Markdown: the generated part of docs/reference/protocol.md.

`python -m imagebatch.cli.reference` does; `make docs` puts it into the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from imagebatch.cli.commands import COMMANDS
from imagebatch.settings import CommonSettings
from imagebatch.settings.flags import ONE_OF, Flag, groups, summary

_HEAD = "| flag | variable | value | default | commands | meaning |\n|---|---|---|---|---|---|"
_OWN = "Flags of one command."


def tables(commands: Mapping[str, type[CommonSettings]]) -> str:
    """Write one table for each group of flags.

    Args:
        commands: Names and settings of all commands.
    """
    shared = {base for kind in commands.values() for base in kind.__mro__[1:]}
    found: dict[str, dict[Flag, list[str]]] = {}
    for name, kind in commands.items():
        for flag in (flag for flags in groups(kind).values() for flag in flags):
            title = summary(flag.home) if flag.home in shared else _OWN
            found.setdefault(title, {}).setdefault(flag, []).append(name)
    for title in (_OWN, summary(CommonSettings)):
        found[title] = found.pop(title)
    return "\n\n".join(_table(title, rows, list(commands)) for title, rows in found.items())


def _table(title: str, rows: dict[Flag, list[str]], everyone: list[str]) -> str:
    flags = list(rows)
    if title != _OWN:  # where two commands differ in a default, their rows stand together
        order = [flag.setting for flag in flags]
        flags.sort(key=lambda flag: order.index(flag.setting))
    lines = [_row(flag, rows[flag], everyone) for flag in flags]
    return "\n".join([f"### {title.removesuffix('.')}", "", _HEAD, *lines])


def _row(flag: Flag, takers: list[str], everyone: list[str]) -> str:
    cells = [
        ", ".join(f"`{option}`" for option in flag.options) or "the first word",
        f"`{flag.variable}`",
        _value(flag),
        _default(flag),
        "all" if takers == everyone else ", ".join(takers),
        re.sub(r"--[a-z][a-z-]*", r"`\g<0>`", flag.sentence),
    ]
    return f"| {' | '.join(cells)} |"


def _value(flag: Flag) -> str:
    if not flag.value:
        return "`true`, `false`"
    if flag.value.islower():
        return ", ".join(f"`{choice}`" for choice in flag.value.split("|"))
    return ", ".join(filter(None, [flag.value.replace("|", " or "), _bounds(flag.least, flag.most)]))


def _bounds(least: str, most: str) -> str:
    if not most:
        return f"{least} or more" if least else ""
    return f"{least} and {most}" if most.startswith("below") else f"{least} to {most}"


def _default(flag: Flag) -> str:
    if flag.needed:
        return "one of these is required" if flag.needed == ONE_OF else "required"
    default = flag.default if flag.value else {"on": "true", "off": "false"}[flag.default]
    return f"`{default}`" if default else ""


if __name__ == "__main__":
    print(tables({name: command.settings for name, command in COMMANDS.items()}))  # noqa: T201 (its output)
