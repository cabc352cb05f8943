"""What `--help` prints: complete, in groups, and fit for a terminal."""

from __future__ import annotations

import re

import pytest
from imagebatch.cli import COMMANDS, call, parse
from imagebatch.cli.help import command_help
from imagebatch.errors import UsageError
from imagebatch.settings.flags import ONE_OF, OWN, REQUIRED, flags, groups, summary

KINDS = {name: command.settings for name, command in COMMANDS.items()}


@pytest.fixture(params=["40", "80", "250"])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The width of the terminal."""
    monkeypatch.setenv("COLUMNS", request.param)
    return int(request.param)


@pytest.mark.parametrize("command", list(KINDS))
def test_help_fits_the_terminal_and_speaks_of_no_python(command: str, columns: int) -> None:
    """Lines end where the terminal does, at 100 characters at most; no type's name, no empty default."""
    text = command_help(command, KINDS[command])
    # What cannot be broken may be longer: a flag, a name in a sentence, a default in its brackets.
    one_word = re.compile(r"\s*(--\S+ \S+|\(default: \S+\)|\S+)")
    for line in text.splitlines():
        assert len(line) <= min(columns, 100) or one_word.fullmatch(line)
    assert max(map(len, text.splitlines())) <= 100
    for word in ("AwareDatetime", "(default: )", "(default: None)", "\N{NO-BREAK SPACE}"):
        assert word not in text


@pytest.mark.parametrize("command", list(KINDS))
def test_what_must_be_given_comes_first(command: str) -> None:
    """The usage line and the first groups name the required flags, and no other group has one."""
    kind = KINDS[command]
    found = groups(kind)
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    assert {flag.setting for flag in found.get(REQUIRED, [])} == required
    assert {flag.setting for flag in found.get(ONE_OF, [])} == set(kind.one_of)
    first = [title for title in found if title in {REQUIRED, ONE_OF}]
    assert list(found)[: len(first)] == first
    usage = command_help(command, kind).partition("\n\n")[0]
    assert all(flag.typed in " ".join(usage.split()) for title in first for flag in found[title])


@pytest.mark.parametrize("command", list(KINDS))
def test_every_flag_stands_in_exactly_one_group(command: str) -> None:
    """No setting is missing from help, and none is told twice; what is common to all comes last."""
    kind = KINDS[command]
    found = groups(kind)
    assert sorted(flag.setting for some in found.values() for flag in some) == sorted(kind.model_fields)
    assert all(found.values())
    assert {flag.setting for flag in list(found.values())[-1]} == {
        "log_level",
        "settings_file",
        "result_files",
    }
    for title, some in found.items():
        homes = {flag.home for flag in some}
        assert title in {REQUIRED, ONE_OF} or homes == ({kind} if title == OWN else {some[0].home})
        assert title in {REQUIRED, ONE_OF, OWN} or title == summary(some[0].home)


@pytest.mark.parametrize("command", list(KINDS))
def test_every_value_has_a_name(command: str) -> None:
    """A flag shows a unit, a kind or its choices; only a switch shows nothing."""
    kind = KINDS[command]
    for flag in flags(kind):
        switch = kind.model_fields[flag.setting].annotation is bool
        assert bool(flag.value) != switch
        assert flag.value in {flag.value.upper(), flag.value.lower()}


@pytest.mark.parametrize("command", list(KINDS))
def test_the_parser_takes_what_help_shows(command: str) -> None:
    """Help is made from the classes, the parser by pydantic-settings: they agree on flags and switches."""
    action = {"models": ["list"], "review": ["export"], "labels": ["import"]}.get(command, [])
    for flag in flags(KINDS[command]):
        for option in flag.options:
            with pytest.raises(UsageError) as caught:
                parse([command, *action, "--nonsense", option])
            if flag.value:
                assert f"argument {option}: expected one argument" in str(caught.value)
            else:
                assert "unrecognized arguments: --nonsense;" in str(caught.value)


def test_the_overview_shows_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    """`imagebatch --help` lists the commands under their titles, each with its sentence."""
    with pytest.raises(SystemExit) as caught:
        call(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  ([a-z]+)  ", text, re.MULTILINE) == list(COMMANDS)
    assert all(f"\n{command.section}:\n" in text for command in COMMANDS.values())
    assert all(summary(kind) in " ".join(text.split()) for kind in KINDS.values())
    assert max(map(len, text.splitlines())) <= 100
