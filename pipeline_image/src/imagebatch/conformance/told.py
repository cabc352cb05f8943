"""Findings for people and programs: a table for a terminal, Markdown to send on, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from imagebatch import __version__
from imagebatch.conformance.subject import Finding, Outcome
from imagebatch.contracts.records import ModelPin

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|#~&!]")


@dataclass(frozen=True)
class Told:
    """What was found of one server.

    Attributes:
        backend: The model API by which it was asked.
        urls: Where it is, without credentials.
        pin: What it said of its model.
        when: UTC, as 2026-01-31T06:00:00Z.
        findings: One for each check, in their order.
    """

    backend: str
    urls: Sequence[str]
    pin: ModelPin
    when: str
    findings: Sequence[Finding]

    def count(self, outcome: Outcome) -> int:
        """Count the checks that ended so."""
        return sum(finding.outcome is outcome for finding in self.findings)

    @property
    def summary(self) -> str:
        """Say in one line what it comes to."""
        counts = ", ".join(f"{self.count(outcome)} {outcome}" for outcome in Outcome)
        return f"{len(self.findings)} checks of {self.backend} at {', '.join(self.urls)}: {counts}"

    def as_table(self) -> str:
        """Return a table for a terminal."""
        names = max(len(finding.check) for finding in self.findings)
        lines = [
            f"{finding.check:{names}}  {finding.outcome:7}  {finding.seconds:6.1f} s  {finding.seen}"
            for finding in self.findings
        ]
        return "\n".join([*lines, self.summary])

    def as_markdown(self) -> str:
        """Return a page for the server's maker; what the server said is escaped."""
        model = " ".join(filter(None, [self.pin.name, self.pin.version]))
        about = {
            "server": ", ".join(self.urls),
            "backend": self.backend,
            "model": f"{model}, {len(self.pin.labels)} labels, {self.pin.digest}",
            "engine": self.pin.engine,
            "checked": f"{self.when}, imagebatch {__version__}",
        }
        head = "".join(f"- {name}: {_escaped(text)}\n" for name, text in about.items() if text)
        rows = "".join(_row(one) for one in self.findings)
        return (
            f"# Conformance of a model server\n\n{head}\n"
            f"| check | what a run relies on | result | seen | seconds |\n|---|---|---|---|---|\n{rows}"
        )

    def as_json(self) -> str:
        """Return all of it as a JSON object."""
        content: dict[str, Any] = {
            "imagebatch": __version__,
            "checked_at": self.when,
            "backend": self.backend,
            "api_urls": list(self.urls),
            "model": {**self.pin.model_dump(exclude={"labels"}), "labels": len(self.pin.labels)},
            **{outcome.value: self.count(outcome) for outcome in Outcome},
            "checks": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(content, indent=1) + "\n"


def _row(one: Finding) -> str:
    told = (_escaped(one.check), _escaped(one.says), one.outcome, _escaped(one.seen), f"{one.seconds:.1f}")
    return f"| {' | '.join(told)} |\n"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)
