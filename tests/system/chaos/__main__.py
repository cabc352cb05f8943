"""`make chaos`: what is done to a run, and what becomes of it."""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import children
from tests.system.chaos import oip, stores
from tests.system.chaos.ground import ALL, Ground
from tests.system.chaos.page import write_page
from tests.system.chaos.runs import Result
from tests.system.kit.scenario import Scenario
from tests.system.kit.suite import Suite, run
from tests.system.kit.verdict import Verdict
from tools.paths import say

FAMILIES = ("replies", "overload", "serving", "crashes", "disks", "crowd")
for family in FAMILIES:
    importlib.import_module(f"tests.system.chaos.{family}")


class Chaos(Suite[Scenario, Result]):
    """Everything that can go wrong, done to runs on a real TorchServe; most of it on a real MLServer, too.

    And what a store can do to runs that are kept in it.
    """

    verb = "chaos"
    text = str(__doc__)
    scenarios = (*ALL, *oip.SCENARIOS, *stores.SCENARIOS)
    head = f"{'images':>7}{'lost':>6}{'doubled':>8}{'extra s':>9}"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the size of a run and of the storm."""
        parser.add_argument("--images", type=int, default=240, help="photographs per run (default 240)")
        parser.add_argument(
            "--storm-seconds", type=float, default=60.0, help="length of the storm of 503 (default 60)"
        )

    @contextmanager
    def system(self, asked: argparse.Namespace) -> Iterator[None]:
        """Make room; a server is started for the first scenario that wants it."""
        self.folder = Path(tempfile.mkdtemp(prefix="imagebatch-chaos-"))
        try:
            self._asked = asked
            self._grounds: dict[bool, Ground] = {}
            yield
        finally:
            children.end_all()

    def act(self, scenario: Scenario) -> Result:
        """Play one scenario; what a failed one left must not disturb the next."""
        ground = self._ground_of(scenario)
        try:
            return scenario.act(ground)
        finally:
            children.end_all(ground.logs)

    def _ground_of(self, scenario: Scenario) -> Ground:
        """Start the server that a scenario wants, once, and run once undisturbed."""
        other = scenario.part == oip.PART
        if other not in self._grounds:
            sizes = {"images": self._asked.images, "storm_seconds": self._asked.storm_seconds}
            kind, folder = (oip.OipGround, self.folder / "oip") if other else (Ground, self.folder)
            ground = kind(folder, **sizes)
            ground.measure_calm()
            self._grounds[other] = ground
            say(f"undisturbed, {self._asked.images} images take {ground.calm_seconds:.1f} s")
        return self._grounds[other]

    def after(self) -> None:
        """See to it that the common servers are there for the next one."""
        for ground in self._grounds.values():
            ground.server.ensure()

    def finish(self, verdicts: Sequence[Verdict[Result]], *, complete: bool) -> list[str]:
        """Write each table of docs/reference/reliability.md whose scenarios were all played."""
        del complete
        for part, whole in (("", ALL), (oip.PART, oip.SCENARIOS), (stores.PART, stores.SCENARIOS)):
            played = [one for one in verdicts if _table_of(one.scenario) == part]
            if len(played) == len(whole):
                ground = self._ground_of(played[0].scenario)
                write_page(played, self._asked.images, ground.calm_seconds, part=part)
        return []


def _table_of(scenario: Scenario) -> str:
    """Name the table that a scenario is a row of; empty: the page's first."""
    return scenario.part if scenario.part in {oip.PART, stores.PART} else ""


if __name__ == "__main__":
    sys.exit(run(Chaos(), sys.argv[1:]))
