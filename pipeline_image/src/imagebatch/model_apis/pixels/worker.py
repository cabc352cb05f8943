"""Workers that make pixels, a script that calls the handlers' own function.

Nothing of imagebatch is imported: a worker holds torch and little else. torch takes seconds to load, so one
process loads it and makes no pixels; the workers are its copies.

    python -I worker.py DESCRIPTOR SETTINGS FOLDER

`DESCRIPTOR` is one end of a socket pair, `SETTINGS` is JSON (`PixelMaker`), `FOLDER` is not needed. First
comes one message that says whether torch was loaded: `+` and the content, or `-` and what went wrong. Then
every request has one answer (`forks`): ("copy", _), followed by a descriptor, the pid of a copy that works at
it; ("status", pid) the exit code of a copy, empty while it runs; ("kill", pid) nothing.

A copy says that it is loaded, and answers every request, ("pixels", asked, list of (key, bytes)), by one
message. Its content is a line of JSON, for each image null or why it cannot be read, and then the pixels of
the others as one tensor: JSON numbers with commas where `asked` has the form `json`; bytes for `raw`, unless
it also names memory (`memory.py`) that could be opened: then they lie there, from its start. Both end when
the other end is closed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, NoReturn

Images = Sequence[tuple[str, bytes]]
Refusals = list[list[str] | None]


class Worker:
    """Makes the pixels that the settings declare.

    Args:
        settings: Of `imagebatch_pixels.decode`, with `layout` and `datatype` of the tensor and, for floats,
            `mean` and `std` of each channel.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        import imagebatch_pixels  # type: ignore[import-untyped]  # noqa: PLC0415 (no type marker; a failed import must reach the parent as a message)
        import numpy as np  # noqa: PLC0415 (a failed import must reach the parent as a message)
        import torch  # noqa: PLC0415 (a failed import must reach the parent as a message)

        torch.set_num_threads(1)  # one worker per core: more threads per worker only fight each other
        self._np, self._refused = np, imagebatch_pixels.ImageError
        view = imagebatch_pixels.View(**settings["view"])
        of_fit = ("fit", "interpolation", "padding", "contrast")
        fit = imagebatch_pixels.Fit(**{name: settings[name] for name in of_fit})
        known = {name: settings[name] for name in ("resize", "crop", "max_pixels")} | {
            "view": view,
            "fit": fit,
            "version": settings["version"],
        }
        self._decode: Callable[[bytes], Any] = lambda data: imagebatch_pixels.decode(data, **known)
        self._last = settings["layout"] == "NHWC"
        sides = (settings["crop"], settings["crop"])
        self._shape = (*sides, 3) if self._last else (3, *sides)
        self._kind: Any = np.float32 if settings["datatype"] == "FP32" else np.uint8
        self._memory: Any = None  # that of the last request, and its number
        self._number = 0
        # What each of the 256 values of a byte becomes: of red, green and blue.
        self._values = [list(range(256))] * 3
        self._table: Any = None
        if settings["datatype"] == "FP32":
            levels = np.arange(256) / 255
            of_channel = [
                (levels - mean) / std for mean, std in zip(settings["mean"], settings["std"], strict=True)
            ]
            self._table = np.array(of_channel, np.float32)
            self._values = self._table.tolist()
        self._texts: list[list[bytes]] = []

    def pixels(self, images: Images, asked: dict[str, Any]) -> bytes:
        """Return the refusals, and the tensor of those that are none unless it was left in memory."""
        if asked["form"] == "json":
            texts: list[bytes] = []
            refusals = self._made(images, lambda pixels: texts.append(self._text(pixels)))
            return json.dumps(refusals).encode() + b"\n" + b",".join(texts)
        shared = self._shared(asked)
        places = self._np.empty((len(images), *self._shape), self._kind) if shared is None else shared
        free = iter(places)
        refusals = self._made(images, lambda pixels: self._fill(next(free), pixels))
        told = json.dumps(refusals).encode() + b"\n"
        return told if shared is not None else told + places[: refusals.count(None)].tobytes()

    def _made(self, images: Images, keep: Callable[[Any], None]) -> Refusals:
        """Give each image's uint8 (3, crop, crop) to `keep`; return the refusals of those that have none."""
        refusals: Refusals = []
        for _, data in images:
            try:
                keep(self._decode(data).numpy())
            except self._refused as error:
                refusals.append([error.reason, error.detail])
            else:
                refusals.append(None)
        return refusals

    def _shared(self, asked: dict[str, Any]) -> Any:
        """Return the images' places in the memory that a request names; None: there is none."""
        if "fd" not in asked:
            return None
        if self._number != asked["number"]:
            self._memory, self._number = self._opened(asked), asked["number"]
        return self._memory

    def _opened(self, asked: dict[str, Any]) -> Any:
        np = self._np
        try:
            descriptor = os.open(f"/proc/{asked['pid']}/fd/{asked['fd']}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # another user's process, or no such folder
            return None
        try:
            mapped = mmap.mmap(descriptor, asked["size"])
        finally:
            os.close(descriptor)
        found = np.frombuffer(mapped, self._kind)
        each = int(np.prod(self._shape))
        return found[: len(found) // each * each].reshape(-1, *self._shape)

    def _fill(self, place: Any, pixels: Any) -> None:
        """Write one image's uint8 (3, crop, crop) as the tensor has it."""
        planes = place.transpose(2, 0, 1) if self._last else place
        if self._table is None:
            planes[...] = pixels
        else:
            for channel, plane in enumerate(planes):
                plane[...] = self._table[channel][pixels[channel]]

    def _text(self, pixels: Any) -> bytes:
        """Return the same as JSON numbers; a float's is the shortest that is the float again."""
        if not self._texts:
            kind = self._np.float32 if self._table is not None else int
            self._texts = [[str(kind(value)).encode() for value in row] for row in self._values]
        planes = [
            map(row.__getitem__, plane.tobytes()) for row, plane in zip(self._texts, pixels, strict=True)
        ]
        if not self._last:
            return b",".join(b",".join(plane) for plane in planes)
        return b",".join(value for colours in zip(*planes, strict=True) for value in colours)


def main(descriptor: int, settings: str) -> None:
    """Load torch, and make copies until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    os.dup2(2, 1)  # standard output belongs to the protocol with the orchestrator
    connection: Connection[bytes, Any] = Connection(descriptor)
    try:
        worker = Worker(json.loads(settings))
    except Exception as error:  # noqa: BLE001 (whatever cannot be loaded is told to the parent)
        with contextlib.suppress(OSError):
            connection.send_bytes(_failed(error))
        return
    gc.freeze()  # what is collected later is none of what the copies share
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is done, or gone
        connection.send_bytes(b"+loaded")
        _multiply(worker, connection)


def _multiply(worker: Worker, connection: Connection[bytes, Any]) -> None:
    running: set[int] = set()
    while True:
        what, number = connection.recv()
        answer = b""
        if what == "copy":
            socket = recv_handle(connection)  # type: ignore[arg-type,unused-ignore]  # typed for other connections in some releases
            number = os.fork()
            if not number:
                connection.close()
                _copied(worker, Connection(socket))
            os.close(socket)
            running.add(number)
            answer = b"%d" % number
        elif number in running and what == "kill":
            os.kill(number, signal.SIGKILL)
        elif number in running:
            ended, status = os.waitpid(number, os.WNOHANG)
            if ended:
                running.remove(number)
                answer = b"%d" % os.waitstatus_to_exitcode(status)
        connection.send_bytes(answer)


def _copied(worker: Worker, connection: Connection[bytes, Any]) -> NoReturn:
    code = 0
    try:
        _serve(worker, connection)
    except (EOFError, ConnectionError):
        pass  # the parent is done, or gone
    except BaseException:  # noqa: BLE001 (a copy never goes on as the original)
        code = 1
    os._exit(code)


def _serve(worker: Worker, connection: Connection[bytes, Any]) -> None:
    connection.send_bytes(b"+loaded")
    while True:
        _, asked, images = connection.recv()
        try:
            answer = b"+" + worker.pixels(images, asked)
        except Exception as error:  # noqa: BLE001 (a decoder raises what it likes: this request fails, the next may not)
            answer = _failed(error)
        connection.send_bytes(answer)


def _failed(error: Exception) -> bytes:
    return f"-{type(error).__name__}: {error}".encode()


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2])
    finally:
        shutil.rmtree(sys.argv[3], ignore_errors=True)
    os._exit(0)  # taking torch down in good order takes a second, and nothing is left to do
