"""What TorchServe's workers said: its answers name no cause, its log does."""

from __future__ import annotations

import re
from pathlib import Path

from imagebatch.errors import one_line

_NAME = Path("logs", "model_log.log")
_MOST_BYTES = 1 << 20
# The last line of a Python traceback, as the output of a worker of a model stands in the log.
_ERROR = r"W-\d+-{model}_{version}-std(?:out|err) MODEL_LOG - ((?:\w+\.)*\w*(?:Error|Exception)\b.*)"

# What TorchServe's worker raises itself once a handler has failed: "RuntimeError: 500 - Unknown exception".
_OF_TORCHSERVE = re.compile(r"RuntimeError: \d{3} - ")


class WorkerLog:
    """What workers write from now on, where the server's log is on this machine.

    TorchServe writes its keys into the folder that it is started in, and its logs into `logs` there, unless
    told otherwise: whoever has the key file at hand often has the log, too.

    Args:
        key_file: Path of the key file; empty: there is no log to read.
    """

    def __init__(self, key_file: str) -> None:
        self._path = Path(key_file).parent / _NAME if key_file else None
        self._begin = self._size()

    def last_error(self, model: str, version: str = "") -> str:
        """Return the last error that a worker of a model told, as one line; empty if none can be read.

        Args:
            model: Name of the model.
            version: Only its workers: other versions may be at work meanwhile; empty: any.
        """
        size = self._size()
        if self._path is None or not size:
            return ""
        begin = self._begin if self._begin <= size else 0  # it has begun a new file meanwhile
        try:
            with self._path.open("rb") as stream:
                stream.seek(max(begin, size - _MOST_BYTES))
                text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""
        which = re.escape(version) if version else r"\S*"
        found = re.findall(_ERROR.format(model=re.escape(model), version=which), text)
        own = [error for error in found if not _OF_TORCHSERVE.match(error)]
        return one_line((own or found)[-1], 300) if found else ""

    def _size(self) -> int:
        try:
            return self._path.stat().st_size if self._path else 0
        except OSError:
            return 0
