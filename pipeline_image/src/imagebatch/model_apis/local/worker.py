"""One worker of the local backend, a script that calls the archive's own handler as TorchServe does.

The handler and its modules are imported from the unpacked archive, so that the code that runs is the code
that the digest covers. Nothing of imagebatch is imported: a worker holds the model and little else.

    python -I worker.py DESCRIPTOR ARCHIVE FOLDER

`DESCRIPTOR` is one end of a socket pair. First comes one message that says whether the model was loaded; then
every request (operation, its argument, list of (key, bytes)) is answered by one message. A message is `+`
and the content, or `-` and what went wrong. The worker ends when the other end is closed.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Images = Sequence[tuple[str, bytes]]

_OK = 200


class Context:
    """What a handler asks TorchServe's context for.

    Args:
        folder: The unpacked archive.
    """

    def __init__(self, folder: Path) -> None:
        import yaml  # noqa: PLC0415 (a failed import must reach the parent as a message)

        self.manifest: dict[str, Any] = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text("utf-8"))
        self.model_name: str = self.manifest["model"]["modelName"]
        self.system_properties = {"model_dir": str(folder)}
        name = self.manifest["model"].get("configFile", "")
        config = yaml.safe_load((folder / name).read_text("utf-8")) if name else None
        self.model_yaml_config: dict[str, Any] = config or {}
        self.headers: Mapping[str, str] = {}
        self.status = _OK

    def get_all_request_header(self, _index: int) -> Mapping[str, str]:
        """Return the headers of the one request."""
        return self.headers

    def set_response_content_type(self, _index: int, _kind: str) -> None:
        """Ignore the content type: the parent knows the reply's format."""

    def set_response_status(self, code: int = _OK, phrase: str = "", idx: int = 0) -> None:
        """Store the one reply's status."""
        del phrase, idx
        self.status = code


class Worker:
    """A loaded handler.

    Args:
        folder: The unpacked archive.
    """

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        self._context = Context(folder)
        module = importlib.import_module(Path(self._context.manifest["model"]["handler"]).stem)
        (kind,) = (
            found
            for found in vars(module).values()
            if isinstance(found, type) and found.__module__ == module.__name__
        )
        self._handler: Any = kind()
        self._handler.initialize(self._context)

    def describe(self) -> bytes:
        """Return the model's description, as served."""
        return bytes(self._handler.describe_handle())

    def predict(self, images: Images, headers: Mapping[str, str]) -> bytes:
        """Return the reply to one multipart request."""
        self._context.headers = {"Content-Type": "multipart/form-data", **headers}
        (body,) = self._handler.handle([dict(images)], self._context)
        if self._context.status != _OK:
            raise ValueError(bytes(body).decode())
        return bytes(body)

    def timed(self, images: Images, seconds: int) -> bytes:
        """Decode and infer the images again and again, as when predicting, and time both."""
        model = self._handler.model
        done, in_model, begun = 0, 0.0, time.perf_counter()
        for _, data in itertools.cycle(images):
            with contextlib.suppress(ValueError):  # an image that the handler refuses costs its decoding only
                pixels = model.decode(data)
                decoded = time.perf_counter()
                model.infer(pixels)
                in_model += time.perf_counter() - decoded
            done += 1
            elapsed = time.perf_counter() - begun
            if elapsed >= seconds:
                break
        return json.dumps({"images": done, "seconds": elapsed, "model_seconds": in_model}).encode()


def main(descriptor: int, archive: str, folder: Path) -> None:
    """Load the archive and answer until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    os.dup2(2, 1)  # standard output belongs to the protocol with the orchestrator
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True
    connection: Connection[bytes, Any] = Connection(descriptor)
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        _serve(Worker(folder), connection)
    except (EOFError, ConnectionError):
        pass  # the parent is done, or gone
    except Exception as error:  # noqa: BLE001 (whatever an archive's code raises is told to the parent)
        with contextlib.suppress(OSError):
            connection.send_bytes(_failed(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(worker: Worker, connection: Connection[bytes, Any]) -> None:
    connection.send_bytes(b"+" + worker.describe())
    operations: dict[str, Callable[[Images, Any], bytes]] = {"predict": worker.predict, "timed": worker.timed}
    while True:
        operation, argument, images = connection.recv()
        try:
            answer = b"+" + operations[operation](images, argument)
        except Exception as error:  # noqa: BLE001 (an archive's code raises what it likes: this request fails, the next may not)
            answer = _failed(error)
        connection.send_bytes(answer)


def _failed(error: Exception) -> bytes:
    return f"-{type(error).__name__}: {error}".encode()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    os._exit(0)  # taking torch down in good order takes a second, and nothing is left to do
