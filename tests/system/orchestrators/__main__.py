"""`make orchestrators`: one batch by every orchestrator, and the same bytes from all of them."""

import argparse
import importlib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import children
from tests.system.kit.scenario import Scenario
from tests.system.kit.suite import Suite, run
from tests.system.kit.table import head_of, row_of
from tests.system.kit.verdict import Verdict, require
from tests.system.orchestrators.ground import WAYS, Ground, Went
from tools.paths import ROOT, say

PAGE = ROOT / "docs" / "reference" / "orchestrators.md"
PASSAGE = re.compile(r"(<!-- begin orchestrators -->\n).*?(<!-- end orchestrators -->)", re.DOTALL)
# The first is the reference; each module's functions put themselves into WAYS.
MODULES = ("whole", "airflow", "kubernetes", "kubeflow", "vertex", "sagemaker", "celery")
for module in MODULES:
    importlib.import_module(f"tests.system.orchestrators.{module}")


class Orchestrators(Suite[Scenario, Went]):
    """Ways to run the same stages on the same photographs."""

    verb = "orchestrators"
    text = str(__doc__)
    scenarios = tuple(WAYS)

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the size of the batch."""
        parser.add_argument("--images", type=int, default=256, help="photographs (default 256)")
        parser.add_argument("--shard-size", type=int, default=64, help="images per shard (default 64)")

    @contextmanager
    def system(self, asked: argparse.Namespace) -> Iterator[None]:
        """Start TorchServe."""
        self.folder = Path(tempfile.mkdtemp(prefix="imagebatch-orchestrators-"))
        self.folder.chmod(0o755)  # containers read the photographs as another user
        try:
            self._ground = Ground(self.folder, images=asked.images, shard_size=asked.shard_size)
            with self._ground.at_end:
                yield
        finally:
            children.end_all()

    def act(self, scenario: Scenario) -> Went:
        """Let one way run the batch, and insist on the bytes of the first one."""
        if scenario is not WAYS[0] and not self._ground.reference:  # it alone was asked for
            self.act(WAYS[0])
        went: Went = scenario.act(self._ground)
        self._ground.reference = self._ground.reference or went.csv
        (self._ground.folder / f"{scenario.name}.csv").write_bytes(went.csv)
        require(went.csv == self._ground.reference, f"predictions.csv differs: {scenario.name}.csv")
        return went

    def finish(self, verdicts: Sequence[Verdict[Went]], *, complete: bool) -> list[str]:
        """Write the table of a complete run."""
        if complete:
            text = PAGE.read_text("utf-8")
            PAGE.write_text(
                PASSAGE.sub(lambda found: f"{found[1]}{_table(verdicts)}{found[2]}", text), "utf-8"
            )
        say(f"the same predictions.csv from {sum(not one.error for one in verdicts)} of {len(verdicts)} ways")
        return []


def _table(verdicts: Sequence[Verdict[Went]]) -> str:
    rows = ""
    for one in verdicts:
        told = f"failed: {one.error[:80]}" if one.result is None else one.result.seen
        rows += row_of([one.scenario.text, told, f"{one.seconds:.0f}"])
    return head_of(["way", "seen", "seconds"]) + rows


if __name__ == "__main__":
    sys.exit(run(Orchestrators(), sys.argv[1:]))
