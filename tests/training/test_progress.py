"""Long work says how far it is and what is left of it."""

import pytest
from imagebatch_training import progress
from imagebatch_training.progress import duration


def test_what_is_left_follows_from_what_was_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An item a minute: a line before every item but the first, and the minutes of the rest."""
    caplog.set_level("INFO")
    clock = iter(range(0, 600, 60))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.progress("abc", "working")) == ["a", "b", "c"]
    assert caplog.messages == [
        "working: 1 of 3, about 4 min 00 s left",
        "working: 2 of 3, about 1 min 30 s left",
    ]


def test_times_are_said_in_words() -> None:
    """Seconds, minutes with seconds, hours with minutes."""
    said = [duration(seconds) for seconds in (0.4, 59.6, 125, 3599, 3600, 7509)]
    assert said == ["0 s", "1 min 00 s", "2 min 05 s", "59 min 59 s", "1 h 00 min", "2 h 05 min"]
