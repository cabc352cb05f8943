"""Score without any server: the archive's own handler in worker processes of one thread each.

The answers are byte for byte those that TorchServe gives with the same archive. It is the reference for what
a machine can do, and a way to score where no TorchServe runs. An archive is code, and is run: give only
archives that you would serve. Needs the extra `local`; no other module of imagebatch needs torch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ConfigurationError, UnknownModelError
from imagebatch.model_apis.base import PROBE, ImagePayload, ModelApi, Reply
from imagebatch.model_apis.local.process import Program
from imagebatch.model_apis.local.workers import WorkerPool
from imagebatch.model_apis.reply import asking_headers, parse_description, parse_reply
from imagebatch.settings import ApiSettings

_NEEDED = ("imagebatch_archive", "openvino", "torch", "yaml")
_SCRIPT = Path(__file__).with_name("worker.py")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def connect(settings: ApiSettings, model: str, version: str) -> LocalModel:
    """Return a pool of workers for one archive; no worker is started yet.

    Raises:
        ConfigurationError: No archive, or the extra is not installed.
    """
    missing = missing_packages()
    if missing:
        raise ConfigurationError(
            f"--backend local needs {', '.join(missing)}: install the extra, imagebatch[local]"
        )
    archive = Path(settings.model_archive.replace("{model}", model))
    if not settings.model_archive or not archive.is_file():
        raise ConfigurationError(
            f"--backend local needs --model-archive, a .mar file: {settings.model_archive or 'none given'}"
        )
    workers = settings.local_workers or cores()
    return LocalModel(archive, model, version, workers=workers, timeout=settings.request_timeout)


def missing_packages() -> list[str]:
    """Return the packages of the extra `local` that are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def cores() -> int:
    """Return how many cores this process may use: its CPU set, and a container's quota rounded up."""
    allowed = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = _CGROUP_QUOTA.read_text("ascii").split()
        allowed = min(allowed, max(1, -(-int(quota) // int(period))))  # "max" is no number: no quota
    return allowed


class LocalModel(ModelApi):
    """The model of one archive. Safe to call from several threads.

    Args:
        archive: The `.mar` file.
        model: Name that the archive must carry.
        version: Version that it must carry; empty for any.
        workers: Processes, one thread each, about 600 MB each.
        timeout: Seconds before a request is given up and its worker replaced.
    """

    has_server = False

    def __init__(self, archive: Path, model: str, version: str, *, workers: int, timeout: float) -> None:
        self._archive = archive
        self._model = model
        self._version = version
        self._pool = WorkerPool(
            Program(_SCRIPT, str(archive), functools.partial(_refused, archive)), workers, timeout
        )

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return len(self._pool.all)

    def describe(self) -> ModelPin:
        """Return the archive's name, version, digest and labels."""
        with self._pool.worker() as worker:
            pin = parse_description(worker.describe())
        if pin.name != self._model or self._version not in {"", pin.version}:
            raise UnknownModelError(
                f"--model-archive {self._archive} holds {pin.name} {pin.version},"
                f" not {self._model} {self._version}".rstrip()
            )
        return pin

    def ready(self) -> None:
        """Return if a worker answers a prediction."""
        self.predict([PROBE], 1)

    def predict(self, images: Sequence[ImagePayload], top_k: int) -> Reply:
        """Answer for every image, in order, from one worker."""
        with self._pool.worker() as worker:
            body = worker.ask("predict", images, asking_headers(images, top_k))
        return parse_reply(body, images, top_k)

    def timed(self, images: Sequence[ImagePayload], seconds: int) -> bytes:
        """Let one worker decode and infer the images again and again, from memory, for about that long.

        Returns:
            JSON: `images` done, `seconds` that they took, `model_seconds` of these outside decoding.
        """
        with self._pool.worker() as worker:
            return worker.ask("timed", images, seconds)

    def close(self) -> None:
        """End all workers."""
        self._pool.close()


def _refused(archive: Path, said: str) -> str:
    return f"--model-archive {archive}: {said}; is it an archive of imagebatch-train?"
