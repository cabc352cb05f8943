"""The pixels of image files, made by the handlers' own function in processes of one thread each.

The function resizes with torch, which no process of the pipeline but these holds: needs the extra `local`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary, WeakValueDictionary

from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.local.pool import cores
from imagebatch.model_apis.local.process import Program, WorkerProcess
from imagebatch.model_apis.local.workers import WorkerPool
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.pixels.forks import Original
from imagebatch.model_apis.pixels.memory import PixelMemory
from imagebatch.settings import ApiSettings

Datatype = Literal["UINT8", "FP32"]
Layout = Literal["NCHW", "NHWC"]
Form = Literal["raw", "json"]

_SCRIPT = Path(__file__).with_name("worker.py")
_NEEDED = ("imagebatch_pixels", "torch")
_CHANNELS = 3
_BYTES: dict[Datatype, int] = {"UINT8": 1, "FP32": 4}
# Characters of the longest number, and its comma.
_CHARACTERS: dict[Datatype, int] = {"UINT8": 4, "FP32": 16}


@dataclass(frozen=True, slots=True)
class Made:
    """The pixels of some images.

    Attributes:
        refusals: For each image None, or the answer to it: it cannot be read.
        contents: The tensor of all others, in their order, row-major.
    """

    refusals: tuple[Answer | None, ...]
    contents: bytes

    @property
    def count(self) -> int:
        """Images in the tensor."""
        return self.refusals.count(None)


class PixelMaker:
    """Worker processes that make one kind of tensor. Safe to use from several threads.

    A worker leaves raw pixels in memory that it shares with this process, as much as its largest request so
    far needed; where memory cannot be shared, and as JSON, they come through its socket.

    Args:
        pixels: What the model card declares.
        datatype: Of the tensor.
        layout: Of an image in it: channels first or last.
        workers: Processes, copies of one that has loaded torch: about 320 MB together, and 35 MB for each.
        timeout: Seconds before a request is given up and its worker replaced.
    """

    def __init__(
        self, pixels: Pixels, datatype: Datatype, layout: Layout, *, workers: int, timeout: float
    ) -> None:
        self._datatype: Datatype = datatype
        self._side = pixels.crop
        settings = pixels.model_dump() | {"datatype": datatype, "layout": layout}
        program = Program(
            _SCRIPT, json.dumps(settings), "the pixels of --model-card cannot be made: {}".format
        )
        self._original = Original(program, timeout)
        self._pool = WorkerPool(program, workers, timeout, self._original.launch)
        # Each is its worker's, lent with it, and given back when the worker is gone.
        self._memories: WeakKeyDictionary[WorkerProcess, PixelMemory] = WeakKeyDictionary()
        sides = (pixels.crop, pixels.crop)
        self.shape = (_CHANNELS, *sides) if layout == "NCHW" else (*sides, _CHANNELS)

    def size(self, form: Form) -> int:
        """Return the bytes of one image in a request, at most."""
        each = _CHARACTERS if form == "json" else _BYTES
        return _CHANNELS * self._side * self._side * each[self._datatype]

    def make(self, images: Sequence[ImagePayload], form: Form) -> Made:
        """Make the pixels of some images, one after the other in one process.

        Args:
            images: Few enough that their pixels fit into memory: `size`.
            form: `raw`, little-endian numbers; or `json`, their texts with commas between them.

        Raises:
            ApiFaultError: The worker died, took too long, or its code raised.
            ConfigurationError: torch cannot be loaded.
        """
        with self._pool.worker() as worker:
            memory = self._memory(worker, len(images) * self.size(form)) if form == "raw" else None
            asked: dict[str, Any] = {"form": form} | (memory.place if memory else {})
            body = worker.ask("pixels", images, asked)
            said, _, contents = body.partition(b"\n")
            refusals = tuple(_refusal(entry) for entry in json.loads(said))
            if memory and not contents:
                contents = memory.read(min(memory.size, refusals.count(None) * self.size(form)))
        made = Made(refusals, contents)
        if len(refusals) != len(images) or (form == "raw" and len(contents) != made.count * self.size(form)):
            raise ApiFaultError(Fault.WORKER_DIED, "a worker made other pixels than it was asked for")
        return made

    def _memory(self, worker: WorkerProcess, size: int) -> PixelMemory | None:
        """Return the memory of a worker that is lent, at least that large; None: it cannot be shared."""
        found = self._memories.get(worker)
        if found is None or found.size < size:
            with contextlib.suppress(OSError, ValueError):
                found = self._memories[worker] = PixelMemory(size)
        return found if found and found.size >= size else None

    def close(self) -> None:
        """End all workers."""
        self._pool.close()
        self._original.close()
        self._memories.clear()


_sharing = threading.Lock()
_makers: WeakValueDictionary[tuple[str, Datatype, Layout, int, float], PixelMaker] = WeakValueDictionary()


def maker_for(pixels: Pixels, datatype: Datatype, layout: Layout, settings: ApiSettings) -> PixelMaker:
    """Return what makes these pixels: one for all endpoints of a model, ended when none holds it any more.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the model takes pixels, and to make them needs {', '.join(missing)}: install the extra,"
            " imagebatch[local]"
        )
    workers = settings.local_workers or cores()
    key = (pixels.model_dump_json(), datatype, layout, workers, settings.request_timeout)
    with _sharing:
        found = _makers.get(key)
        if found is None:
            found = _makers[key] = PixelMaker(
                pixels, datatype, layout, workers=workers, timeout=settings.request_timeout
            )
        return found


def _refusal(entry: list[str] | None) -> Answer | None:
    return None if entry is None else Answer(reason=entry[0], detail=one_line(entry[1], 200))
