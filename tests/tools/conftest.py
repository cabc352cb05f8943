"""A state folder of its own for the scripts of `tools/local`, which read it at their import.

Above all tests of tools, for the first import of `tools.paths` decides: nobody's own stack is touched.
"""

import os
import tempfile

STATE = tempfile.TemporaryDirectory(prefix="imagebatch-embedded-")
for name in [name for name in os.environ if name.startswith("IMAGEBATCH_")]:
    del os.environ[name]
os.environ["IMAGEBATCH_VAR"] = STATE.name


def pytest_unconfigure() -> None:
    STATE.cleanup()
