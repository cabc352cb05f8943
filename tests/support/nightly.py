"""The script of docs/how-to/other-orchestrators.md that cron starts, saved as a reader would save it."""

import os
import re
import subprocess
from pathlib import Path

from tools.compose.stack import Stack
from tools.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "other-orchestrators.md"


class Nightly:
    """The script, on a stack's model server.

    Args:
        folder: Where it is saved.
        stack: The stack that it runs beside.
        run_id: Of the night.
    """

    def __init__(self, folder: Path, stack: Stack, run_id: str) -> None:
        script = re.search(
            r"<!-- script: run by make compose-test -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL
        )
        assert script
        self._path = folder / "imagebatch-nightly"
        self._path.write_text(script[1])
        self._path.chmod(0o755)
        self._settings = {"PROJECT": stack.project, "RUN": run_id, "PATH": os.environ["PATH"]}
        self._settings["INPUTS"] = stack.settings["IMAGEBATCH_DOCKER_INPUTS"]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it as cron would: few variables, no terminal."""
        return subprocess.run(
            [self._path, *arguments], env=self._settings, cwd="/", capture_output=True, text=True, check=False
        )
