"""`make operations-test`: the UI, the kills and the how-to pages, on a compose stack of the test's own.

With ENGINE_START (a shell command that starts the container engine again) the engine is killed, too; that is
for a machine where nobody else uses it. Names of parts (`ui`, `kills`, `pages`) as arguments run only those.
"""

import os
import subprocess
import sys
import time

from tests.system.operations import kills, pages
from tests.system.operations.stack import ROOT, Stack, own_stack

PARTS = ("ui", "kills", "pages")
PYTHON = ROOT / "airflow" / ".venv" / "bin" / "python"


def main(argv: list[str]) -> int:
    """Run the parts on one stack.

    Args:
        argv: names of parts; none = all.

    Returns:
        0 if everything held, else the exit code of what did not.
    """
    begun = time.monotonic()
    chosen = [part for part in PARTS if part in argv or not argv]
    if not chosen or set(argv) - set(PARTS):
        raise SystemExit(f"error: the parts are {', '.join(PARTS)}")
    code = 0
    with own_stack("imagebatch-operations") as stack:
        if "ui" in chosen and (code := walk(stack)):
            return code
        if "kills" in chosen:
            code = kills.kill_all(stack, kills.possible(kills.SCENARIOS))
        if "pages" in chosen:
            pages.follow_pages(stack, list(pages.PAGES))
    print(f"operations, {', '.join(chosen)}: {time.monotonic() - begun:.0f} s")
    return code


def walk(stack: Stack) -> int:
    """Walk through Airflow's UI in a browser, and give its exit code."""
    walked = subprocess.run(
        [PYTHON, ROOT / "tests" / "system" / "operations" / "browser.py", f"http://127.0.0.1:{stack.port}"],
        env={**os.environ, "AIRFLOW_PASSWORD": stack.settings["AIRFLOW_ADMIN_PASSWORD"]},
        check=False,
    )
    return walked.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
