"""What people are told about the files of an input: what became of each, and why some were left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from imagebatch.contracts.records import LeftOut, LeftOutCounts

NO_SUFFIX, OTHER_SUFFIXES = "none", "other"  # no suffix looks like that: all begin with a dot

_MOST_TOLD = 6
_SAYS: dict[str, str] = {
    LeftOut.NO_IMAGE_SUFFIX: "{suffix}",
    LeftOut.NOT_INCLUDED: "{suffix} not in --include",
    LeftOut.SIDE_FILE: "side file{s}",
    LeftOut.HIDDEN: "hidden",
    LeftOut.NOT_A_FILE: "no regular file{s}",
    LeftOut.BEYOND_LIMIT: "beyond --limit",
}
_SAYS_SUFFIX = {NO_SUFFIX: "without a suffix", OTHER_SUFFIXES: "of other suffixes"}


def total(counts: LeftOutCounts) -> int:
    """Return the number of files left out."""
    return sum(sum(suffixes.values()) for suffixes in counts.values())


def account(listed: Mapping[str, int], counts: LeftOutCounts) -> str:
    """Say what became of every file: `24 files: 2 predicted, 22 left out: 6 HEIC, 3 without a suffix`.

    Args:
        listed: What became of the listed images, in order; zeros are not told.
        counts: Of those left out.
    """
    files, said = sum(listed.values()) + total(counts), [f"{n:,} {what}" for what, n in listed.items() if n]
    if counts:
        said.append(in_words(counts))
    return f"{files:,} file{'' if files == 1 else 's'}: {', '.join(said) or 'none'}"


def in_words(counts: LeftOutCounts) -> str:
    """Say how many files were left out, and which: `22 left out: 6 HEIC, 3 without a suffix`."""
    said: Counter[str] = Counter()
    for reason, suffixes in counts.items():
        for suffix, files in suffixes.items():
            said[_phrase(reason, suffix)] += files
    order = sorted(said.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{files:,} {phrase.format(s='' if files == 1 else 's')}" for phrase, files in order[:_MOST_TOLD]]
    if len(order) > _MOST_TOLD:
        told.append(f"{sum(files for _, files in order[_MOST_TOLD:]):,} others")
    return f"{total(counts):,} left out: {', '.join(told)}"


def _phrase(reason: str, suffix: str) -> str:
    return _SAYS[reason].replace("{suffix}", suffix_words(suffix))


def suffix_words(suffix: str) -> str:
    """Say a suffix, as it stands in the counts: `HEIC`, `without a suffix`."""
    return _SAYS_SUFFIX.get(suffix, suffix[1:].upper())
