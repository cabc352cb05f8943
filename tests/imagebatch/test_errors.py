"""The error tree."""

from __future__ import annotations

import inspect

from imagebatch import errors


def tree() -> list[type[errors.ImagebatchError]]:
    return [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.ImagebatchError) and value is not errors.ImagebatchError
    ]


def test_every_error_is_drawn_with_its_code() -> None:
    """The tree at the top of the module is the truth."""
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "─" in line]
    assert len(drawn) == len(tree())
    for kind in tree():
        line = next(text for text in drawn if f" {kind.__name__} " in text)
        assert f" {kind.exit_code.value} " in line
        assert ("(retry" in line) == kind.retry


def test_messages_are_one_bounded_line() -> None:
    """Hostile text inside a message cannot forge a log line or flood it."""
    error = errors.StorageError("a\nb\x1b[31m" + "x" * 5000)
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) == errors.MAX_MESSAGE
