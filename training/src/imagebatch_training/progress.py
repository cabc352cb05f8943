"""A line about long work every few seconds."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

log = logging.getLogger(__name__)

_SECONDS = 5.0
_Item = TypeVar("_Item")


def progress(items: Sequence[_Item], what: str) -> Iterator[_Item]:
    """Walk through `items` and log how far it is, at most every five seconds.

    Args:
        items: What is worked on.
        what: Said in front of the count.

    Yields:
        The items.
    """
    told = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - told >= _SECONDS:
            told = time.monotonic()
            log.info("%s: %d of %d", what, number, len(items))
        yield item
