"""A line about long work every few seconds, with what is left of it."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

log = logging.getLogger(__name__)

_SECONDS = 5.0
_Item = TypeVar("_Item")


def progress(items: Sequence[_Item], what: str) -> Iterator[_Item]:
    """Walk through `items` and log how far it is and how long the rest may take, at most every five seconds.

    Args:
        items: What is worked on.
        what: Said in front of the count.

    Yields:
        The items.
    """
    begun = told = time.monotonic()
    for number, item in enumerate(items):
        now = time.monotonic()
        if number and now - told >= _SECONDS:
            told = now
            left = (now - begun) / number * (len(items) - number)
            log.info("%s: %d of %d, about %s left", what, number, len(items), duration(left))
        yield item


def duration(seconds: float) -> str:
    """Say a time in words: `1 h 05 min`, `2 min 30 s`, `4 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
