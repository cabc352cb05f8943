"""`make operations-test`: the UI, the kills and the how-to pages, on a compose stack of the test's own.

With ENGINE_START (a shell command that starts the container engine again) the engine is killed, too; that is
for a machine where nobody else uses it.
"""

import os
import subprocess
import sys
import time

import kills
import pages
from stack import ROOT, own_stack

PYTHON = ROOT / "airflow" / ".venv" / "bin" / "python"


def main() -> int:
    """Run all three parts.

    Returns:
        0 if everything held, else the exit code of what did not.
    """
    begun = time.monotonic()
    with own_stack("imagebatch-operations") as stack:
        browser = subprocess.run(
            [PYTHON, ROOT / "tests" / "operations" / "browser.py", f"http://127.0.0.1:{stack.port}"],
            env={**os.environ, "AIRFLOW_PASSWORD": stack.settings["AIRFLOW_ADMIN_PASSWORD"]},
            check=False,
        )
        if browser.returncode:
            return browser.returncode
        code = kills.kill_all(stack, kills.possible(kills.SCENARIOS))
        pages.follow_pages(stack, list(pages.PAGES))
    print(f"operations: {time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
