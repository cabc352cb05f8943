"""Files of lines NAME=value: Java properties, the settings of containers, a service's variables."""

from collections.abc import Mapping
from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """Read a file.

    Args:
        path: of the file; lines that begin with a `#`, or that hold no `=`, say nothing.

    Returns:
        Values by name, without the spaces around a line; of a name that stands twice, the last.

    Raises:
        OSError: it cannot be read.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def text(values: Mapping[str, object]) -> str:
    """Write values as the lines that `read` reads, in their order."""
    return "".join(f"{name}={value}\n" for name, value in values.items())
