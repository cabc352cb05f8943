"""A sign that a finished run is being worked on, for as long as that takes: `prune` keeps it meanwhile.

It is a file that is written again and again. A process that dies leaves it, and its age tells: nothing has to
be cleared away before the run can be pruned.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator

from imagebatch.contracts.layout import RUN_JSON
from imagebatch.errors import RunHeldError, StorageError
from imagebatch.runs.folder import RunFolder

# A run that was written to this recently may be at work, whatever --keep-days says.
AT_WORK_SECONDS = 3_600.0
_BEAT_SECONDS = AT_WORK_SECONDS / 6
# Written first where a run is removed from an object store (runs/retention.py).
TOMBSTONE = "_PRUNED"


@contextlib.contextmanager
def at_work(run: RunFolder) -> Iterator[None]:
    """Keep a run from being pruned while the block lasts.

    The sign is written before the run is looked for, and `prune` takes a run away before it looks for the
    sign: one of the two sees the other.

    Raises:
        RunHeldError: The run is being removed.
    """
    path = f"redrives/at-work-{uuid.uuid4().hex}"
    run.write(path, b"")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            with contextlib.suppress(StorageError):  # tried again at the next beat
                run.write(path, b"")

    beating = threading.Thread(target=beat, name="at work", daemon=True)
    try:
        if not run.exists(RUN_JSON) or run.exists(TOMBSTONE):
            raise RunHeldError(f"{run.uri} is being removed by imagebatch prune")
        beating.start()
        yield
    finally:
        ended.set()
        if beating.ident:
            beating.join()
        with contextlib.suppress(StorageError):  # its age tells that nobody is at work
            run.remove(path)
