"""Where the faults are made: a folder and a port of their own, beside the demo's stack.

`tools.paths` reads both when it is imported, so this comes first.
"""

import os
import socket
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PHOTOGRAPHS = Path(os.environ.get("IMAGEBATCH_VAR") or ROOT / "var") / "data/solar-cells/images"
FOLDER = Path(tempfile.gettempdir(), f"imagebatch-monitoring-{os.getpid()}")  # made when the faults begin

os.environ["IMAGEBATCH_VAR"] = str(FOLDER / "var")
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ["IMAGEBATCH_PORT_AIRFLOW"] = str(free.getsockname()[1])
