"""`imagebatch doctor`: what is missing on this machine, one line each."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

from imagebatch.errors import ConfigurationError, UsageError
from imagebatch.settings import DoctorSettings

_OLDEST_JAVA = 11
_LAST_PORT = 65535


def doctor(settings: DoctorSettings) -> list[str]:
    """Check what the settings name.

    Returns:
        One line per check that passed.

    Raises:
        ConfigurationError: Something is missing; the text names all of it.
    """
    ports = [port.strip() for port in settings.ports.split(",") if port.strip()]
    checks = [_port(port) for port in ports]
    if settings.java:
        checks.append(_java(settings.java))
    checks.append(_disk(settings.path, settings.min_free_gb))
    missing = [text for good, text in checks if not good]
    if missing:
        raise ConfigurationError("; ".join(missing))
    return [text for _, text in checks]


def _port(port: str) -> tuple[bool, str]:
    if not port.isdigit() or not 0 < int(port) <= _LAST_PORT:
        raise UsageError(f"--ports: {port} is not a port number")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError:
            return False, f"port {port} is taken: stop what listens there (ss -ltnp 'sport = :{port}')"
    return True, f"port {port} is free"


def _java(java: str) -> tuple[bool, str]:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 (the operator names it)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"no Java at {java} ({type(error).__name__}): install Java {_OLDEST_JAVA} or newer"
    found = re.search(r'version "(\d+)', done.stderr)
    if done.returncode or not found or int(found[1]) < _OLDEST_JAVA:
        return False, f"{java} is not Java {_OLDEST_JAVA} or newer: install one"
    return True, f"Java {found[1]} at {java}"


def _disk(path: str, wanted_gb: float) -> tuple[bool, str]:
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < wanted_gb:
        return False, f"{free:.1f} GB free at {folder}, {wanted_gb:g} GB are needed: make room"
    return True, f"{free:.1f} GB free at {folder}"
