"""`make setup`: uv, the locked environments and a Java. Does again only what has changed.

With the argument `ready` it leaves out the environments that only tests use.
"""

import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Sequence

from tools.local import java
from tools.paths import ROOT, UV, Argv, fail, run, say, step

UV_VERSION = "0.13.9"
READY = (".", "airflow", "pipeline_image", "handlers", "training", "monitoring")
"""What the demo needs."""
PARTS = (*READY, "deploy/kserve/predictor", "deploy/kserve")
# `local`: scoring without a server; its torch is linked out of uv's cache, where handlers/ has put it.
# `import`: timm's architectures; with what it needs 26 MB.
EXTRAS: dict[str, Argv] = {"pipeline_image": ["--extra", "local"], "training": ["--extra", "import"]}
WANTED_BYTES = 12 * 10**9  # torch's CUDA build is 5.7 GB, unpacked once and linked; the rest is below 3 GB


def main(parts: Sequence[str] = PARTS) -> None:
    """Bring the checkout to the state of its locks.

    Args:
        parts: folders whose environments are made.
    """
    begun = time.monotonic()
    if not (ROOT / "training" / ".venv").exists():
        free = shutil.disk_usage(ROOT).free
        if free < WANTED_BYTES:
            fail(f"{free / 1e9:.1f} GB free at {ROOT}: the environments need {WANTED_BYTES / 1e9:.0f}")
    install_uv()
    for part in parts:
        name = "tools" if part == "." else part
        if _current(part):
            continue
        with step(f"setup: {name}"):
            run([UV, "sync", "--frozen", "--quiet", *EXTRAS.get(part, []), "--project", part])
    if java.find() is None:
        with step("setup: java"):
            if java.install() is None:
                fail(f"no Java {java.OLDEST} or newer: install one (Debian: default-jre-headless)")
    say(f"setup is current ({time.monotonic() - begun:.1f} s)")


def install_uv() -> None:
    """Install the pinned uv into an environment of its own, unless it is there."""
    if UV.exists() and _uv_version() == UV_VERSION:
        return
    with step(f"setup: uv {UV_VERSION}"):
        try:
            venv.create(UV.parent.parent, with_pip=True, clear=True)
        except (OSError, subprocess.CalledProcessError):
            fail(f"{sys.executable} has no venv module: install it (Debian: python3.11-venv)")
        pip: Argv = [UV.parent / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, f"uv=={UV_VERSION}"])


def _uv_version() -> str:
    done = subprocess.run([UV, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.split()[1] if done.returncode == 0 else ""


def _current(part: str) -> bool:
    extras = EXTRAS.get(part, [])
    check: Argv = [UV, "sync", "--frozen", "--quiet", "--check", *extras, "--project", part]
    return subprocess.run(check, cwd=ROOT, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main(READY if sys.argv[1:] == ["ready"] else PARTS)
