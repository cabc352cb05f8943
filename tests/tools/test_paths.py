import os
import subprocess
import sys

import pytest

from tools.paths import ROOT


@pytest.mark.parametrize("text", ["http", "0", "65536", "80.5", "-1", "٨٠٨٠"])
def test_a_port_that_is_none_is_one_line(text: str) -> None:
    """78, with the variable and what it must be, before anything is done."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.local.stack", "status"],
        cwd=ROOT,
        env=os.environ | {"IMAGEBATCH_PORT_AIRFLOW": text},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    wanted = f"error: IMAGEBATCH_PORT_AIRFLOW={text!r} is no port: give a number from 1 to 65535\n"
    assert (done.stdout, done.stderr) == ("", wanted)
