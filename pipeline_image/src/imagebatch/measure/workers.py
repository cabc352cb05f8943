"""The number of TorchServe workers, changed through its management API. Each has one thread."""

from __future__ import annotations

from urllib.parse import urlsplit

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ImagebatchError
from imagebatch.log import get_logger
from imagebatch.model_apis.torchserve.management import Management
from imagebatch.settings import ModelsSettings, TuneSettings

log = get_logger()

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Workers:
    """The workers of one model of a TorchServe on this machine.

    Args:
        management: Its management API.
        pin: The model.

    Attributes:
        found: How many there were at the beginning.
    """

    def __init__(self, management: Management, pin: ModelPin) -> None:
        self._management = management
        self._pin = pin
        self.found = self._count()
        self.now = self.found

    def scale(self, workers: int) -> None:
        """Set the number of workers, and return when the new ones are ready."""
        if workers != self.now:
            self._management.scale(self._pin.name, self._pin.version, workers)
            self.now = workers
            log.info("workers scaled", workers=workers)

    def change(self, workers: int) -> tuple[int, int]:
        """Return the tie-breaker: prefer the number of workers closest to the one found."""
        return abs(workers - self.found), workers

    def _count(self) -> int:
        return len(self._management.describe(self._pin.name, self._pin.version)["workers"])


def reachable_workers(settings: TuneSettings, pin: ModelPin) -> tuple[Workers | None, str]:
    """Return the workers, or None and the reason why their number stays as it is."""
    if not settings.tune_workers:
        return None, "--no-tune-workers"
    if settings.backend != "torchserve":
        return None, f"the backend is {settings.backend}"
    if "," in settings.api_url:
        return None, "there are several endpoints"
    if urlsplit(settings.api_url).hostname not in _LOOPBACK:
        return None, "the server is on another machine, whose cores are not known here"
    try:
        return Workers(Management(settings.part(ModelsSettings, action="describe")), pin), ""
    except ImagebatchError as error:
        return None, str(error)


def counts(cores: int, found: int) -> list[int]:
    """Return the numbers of workers to try: one fewer than cores, as many, one more, and today's."""
    return sorted({max(1, cores - 1), cores, cores + 1, found} - {0})
