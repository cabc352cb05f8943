"""What a gate says when it stops a run: counts by reason, some names, where all of them are, what to do."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.contracts.records import Reason
from imagebatch.errors import one_line

_NAMED = 2  # images of each reason
_LONGEST_NAME, _LONGEST_DETAIL = 40, 70
_LINKS_TO = "links to "
_REMEDIES: dict[str, str] = {
    Reason.OUTSIDE_ALLOWED_ROOTS: "let --allowed-roots name the folders that they lie in",
    Reason.NOT_FOUND: "is the list right, the upload complete?",
    Reason.UNREADABLE: "give this user read access",
    Reason.TOO_MANY_BYTES: "raise --max-image-bytes if they are meant",
    Reason.TOO_MANY_PIXELS: "raise --max-image-pixels if they are meant",
    Reason.TOO_MANY_PAGES: "raise --max-pages if they are meant",
}


class Refusals:
    """Images without a result: how many of each reason, and some of them by name.

    Attributes:
        counts: By reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._targets = ""  # the folder in which all that links outside lead to lies
        self._some: dict[str, list[tuple[str, str]]] = {}

    def add(self, table: pa.Table) -> None:
        """Count a table's rows with a reason: columns `image_id`, `reason`, `detail`."""
        refused = table.filter(pc.is_valid(table["reason"]))
        self.counts.update(refused["reason"].to_pylist())
        for reason in refused["reason"].unique().to_pylist():
            some = self._some.setdefault(reason, [])
            if len(some) < _NAMED:
                rows = refused.filter(pc.equal(refused["reason"], reason)).slice(0, _NAMED - len(some))
                some += zip(rows["image_id"].to_pylist(), rows["detail"].to_pylist(), strict=True)
            if reason == Reason.OUTSIDE_ALLOWED_ROOTS:
                outside = refused.filter(pc.equal(refused["reason"], reason))["detail"].to_pylist()
                folders = [path.rpartition("/")[0] for detail in outside if (path := _linked(detail))]
                if folders:
                    self._targets = os.path.commonpath([self._targets or folders[0], *folders])

    def by_reason(self) -> str:
        """Say how many there are of each reason: `4 outside_allowed_roots, 2 empty`."""
        return ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common(5))

    def some(self) -> str:
        """Name some of each reason, the first with what is known about it."""
        told = []
        for reason, _ in self.counts.most_common(3):
            (first, detail), *others = self._some[reason]
            names = [f"{one_line(first, _LONGEST_NAME)} ({one_line(detail or reason, _LONGEST_DETAIL)})"]
            told += names + [one_line(name, _LONGEST_NAME) for name, _ in others]
        return ", ".join(told)

    def remedy(self, roots: str) -> str:
        """Say what helps against the most frequent reason.

        Args:
            roots: The allowed roots, as --allowed-roots takes them.
        """
        most = self.counts.most_common(1)[0][0]
        if most == Reason.OUTSIDE_ALLOWED_ROOTS and len(self._targets) > 1:
            return f"give --allowed-roots {roots},{self._targets} if links may lead there"
        return _REMEDIES.get(most, "repair or remove them")


def _linked(detail: str | None) -> str:
    """Return the path that a refused link leads to, as its detail says; empty if it does not."""
    path = (detail or "").partition("; see ")[0]
    return path.removeprefix(_LINKS_TO) if path.startswith(f"{_LINKS_TO}/") else ""


def sentence(outcome: dict[str, Any]) -> str:
    """Say of an expectation what was wanted of which column, and what was seen."""
    config = outcome["expectation_config"]
    wanted = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    seen = {
        key: outcome["result"][key]
        for key in ("observed_value", "unexpected_count", "partial_unexpected_list")
        if key in outcome.get("result", {})
    }
    return f"{config['type']} {wanted} saw {seen or outcome.get('exception_info')}"
