"""What suites take from a finished demo: some of its photographs, of all kinds."""

import shutil
from pathlib import Path

from tools.paths import VAR, fail

PHOTOGRAPHS = VAR / "data" / "solar-cells" / "images"


def copy_photographs(count: int, folder: Path, archive: Path) -> list[str]:
    """Copy so many of the demo's photographs.

    Args:
        count: How many; evenly spread, for the first ones are all of one module.
        folder: Where to; made.
        archive: The demo's, which must be there as well.

    Returns:
        Their names, sorted.

    Raises:
        SystemExit: There was no demo.
    """
    if not PHOTOGRAPHS.is_dir() or not archive.exists():
        fail(f"{PHOTOGRAPHS} or {archive} is missing: run `make demo` first")
    folder.mkdir()
    found = sorted(PHOTOGRAPHS.iterdir())
    for photograph in found[:: max(1, len(found) // count)][:count]:
        shutil.copy(photograph, folder)
    return sorted(path.name for path in folder.iterdir())
