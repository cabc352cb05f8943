"""A state folder of its own for the scripts of `tools/local`, which read it at their import."""

import os
import tempfile

STATE = tempfile.TemporaryDirectory(prefix="imagebatch-embedded-")
for name in [name for name in os.environ if name.startswith("IMAGEBATCH_")]:
    del os.environ[name]
os.environ["IMAGEBATCH_VAR"] = STATE.name


def pytest_unconfigure() -> None:
    STATE.cleanup()
