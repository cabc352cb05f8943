"""The pictures of a GIF, counted without decoding them. Standard library only."""

from typing import Final, NamedTuple

from imagebatch_header import Data

# More blocks than this are not counted: a crafted file could make the count itself expensive.
_MOST_BLOCKS: Final = 2_000_000


def gif_frames(data: Data) -> int:
    """Count the pictures of a GIF without decoding them; of one with too many blocks, say so many."""
    return max(1, _walk(data).frames)


def gif_pages(data: Data) -> int:
    """Count them as `gif_frames` does, and one more if an animation ends between two without its end mark."""
    found = _walk(data)
    return max(1, found.frames + (found.frames > 1 and found.cut))


class _Walk(NamedTuple):
    """The pictures of a GIF, and whether the file ends outside of any, before its end mark."""

    frames: int
    cut: bool


def _walk(data: Data) -> _Walk:
    found = steps = 0
    inside = False
    try:
        at = 13 + _table(data[10])
        while steps < _MOST_BLOCKS and data[at] in (0x21, 0x2C):
            inside = data[at] == 0x2C  # noqa: PLR2004 - the mark of a picture
            if inside:
                found += 1
                at += 11 + _table(data[at + 9])
            else:
                at += 2
            while data[at] and steps < _MOST_BLOCKS:
                at, steps = at + data[at] + 1, steps + 1
            at, steps, inside = at + 1, steps + 1, False
    except IndexError:  # the file ends early: whether that matters, the decoder finds out
        return _Walk(found, not inside)
    return _Walk(found if steps < _MOST_BLOCKS else _MOST_BLOCKS, cut=False)


def _table(flags: int) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
