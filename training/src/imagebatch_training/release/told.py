"""What a release has done: one line per step, and its figures."""

import logging
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Told:
    """Grows with each step.

    Attributes:
        lines: For people.
        figures: By step, for `--json`.
    """

    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def step(self, name: str, text: str, **figures: Any) -> None:
        """Keep a step's line, and log it at once."""
        self.lines.append(f"{name}: {text}")
        self.figures[name] = figures | {"said": text}
        log.info("%s: %s", name, text)
