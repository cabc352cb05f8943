"""`make operations-test`: the UI, the kills and the how-to pages, on a compose stack of the test's own.

With ENGINE_START (a shell command that starts the container engine again) the engine is killed, too; that is
for a machine where nobody else uses it.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.kit.scenario import Scenario
from tests.system.kit.suite import Suite, run
from tests.system.kit.verdict import Seen, require
from tests.system.operations.kills import Kills
from tests.system.operations.pages import PAGES
from tests.system.operations.stack import Stack, own_stack
from tools.paths import ROOT, program


def walk(stack: Stack) -> Seen:
    """Walk through Airflow's UI in a browser."""
    walked = subprocess.run(
        [
            program("airflow", "python"),
            ROOT / "tests" / "system" / "operations" / "browser.py",
            stack.airflow,
        ],
        env={**os.environ, "AIRFLOW_PASSWORD": stack.settings["AIRFLOW_ADMIN_PASSWORD"]},
        check=False,
    )
    require(walked.returncode == 0, f"the walk ended with {walked.returncode}")
    return Seen("walked through")


class Operations(Suite[Scenario, Seen]):
    """What a person does to the compose stack, and what befalls it."""

    verb = "operations-test"
    text = str(__doc__)
    scenarios = (
        Scenario("ui", "Airflow's UI is walked through in a browser.", walk, "ui"),
        *Kills().scenarios(),
        *PAGES,
    )
    goes_on = False  # they share one stack

    @contextmanager
    def system(self, asked: argparse.Namespace) -> Iterator[None]:
        """Bring up the stack."""
        del asked
        with own_stack("imagebatch-operations") as self._stack:
            yield

    def act(self, scenario: Scenario) -> Seen:
        """Play one scenario on the stack."""
        result: Seen = scenario.act(self._stack)
        return result


if __name__ == "__main__":
    sys.exit(run(Operations(), sys.argv[1:]))
