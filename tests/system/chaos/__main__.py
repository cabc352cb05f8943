"""`make chaos`: what is done to a run, and what becomes of it."""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import children
from tests.system.chaos.ground import ALL, Ground
from tests.system.chaos.page import write_page
from tests.system.chaos.runs import Result
from tests.system.kit.scenario import Scenario
from tests.system.kit.suite import Suite, run
from tests.system.kit.verdict import Verdict
from tools.paths import say

FAMILIES = ("replies", "overload", "serving", "crashes", "disks", "bucket", "crowd")
for family in FAMILIES:
    importlib.import_module(f"tests.system.chaos.{family}")


class Chaos(Suite[Scenario, Result]):
    """Everything that can go wrong, done to runs on a real TorchServe."""

    verb = "chaos"
    text = str(__doc__)
    scenarios = ALL
    head = f"{'images':>7}{'lost':>6}{'doubled':>8}{'extra s':>9}"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the size of a run and of the storm."""
        parser.add_argument("--images", type=int, default=240, help="photographs per run (default 240)")
        parser.add_argument(
            "--storm-seconds", type=float, default=60.0, help="length of the storm of 503 (default 60)"
        )

    @contextmanager
    def system(self, asked: argparse.Namespace) -> Iterator[None]:
        """Start the TorchServe, and run once undisturbed."""
        self.folder = Path(tempfile.mkdtemp(prefix="imagebatch-chaos-"))
        try:
            self._images = asked.images
            self._ground = Ground(self.folder, images=asked.images, storm_seconds=asked.storm_seconds)
            self._ground.measure_calm()
            say(f"undisturbed, {asked.images} images take {self._ground.calm_seconds:.1f} s")
            yield
        finally:
            children.end_all()

    def act(self, scenario: Scenario) -> Result:
        """Play one scenario; what a failed one left must not disturb the next."""
        try:
            return scenario.act(self._ground)
        finally:
            children.end_all(self._ground.logs)

    def after(self) -> None:
        """See to it that the common server is there for the next one."""
        self._ground.server.ensure()

    def finish(self, verdicts: Sequence[Verdict[Result]], *, complete: bool) -> list[str]:
        """Write docs/reference/reliability.md."""
        if complete:
            write_page(verdicts, self._images, self._ground.calm_seconds)
        return []


if __name__ == "__main__":
    sys.exit(run(Chaos(), sys.argv[1:]))
