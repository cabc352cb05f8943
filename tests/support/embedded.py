"""The stack without containers, in a folder and on ports of its own, for as long as a `with` lasts."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.airflow_api import AirflowApi
from tools.loopback import free_ports
from tools.paths import PORTS, Argv, run


@contextmanager
def embedded(folder: Path, settings: Mapping[str, str]) -> Iterator[AirflowApi]:
    """Start it and log in; at the end all of it is stopped, whatever happens.

    Args:
        folder: Its `var/`; runs are in `runs` below it.
        settings: Variables beside its folder and its ports.
    """
    ports = {
        f"IMAGEBATCH_PORT_{name.upper()}": str(port)
        for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)
    }
    told = {**ports, "IMAGEBATCH_VAR": str(folder), **settings}
    script: Argv = [sys.executable, "-m", "tools.local.stack"]
    try:
        run([*script, "up"], quiet=True, environment=told)
        password = json.loads((folder / "airflow" / "passwords.json").read_text())["admin"]
        yield AirflowApi(f"http://127.0.0.1:{ports['IMAGEBATCH_PORT_AIRFLOW']}", "admin", password)
    finally:
        run([*script, "down"], quiet=True, environment=told)
