"""The in-process ceilings: every core decodes and infers from memory, with no server, scorer or file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ConfigurationError, ModelApiUnavailableError
from imagebatch.measure.clock import Clock, Reading
from imagebatch.model_apis.base import ApiFaultError, ImagePayload
from imagebatch.model_apis.local.pool import LocalModel, connect, missing_packages
from imagebatch.settings import ScoringSettings

# A measurement must not be cut short by the time-out of a request.
_MARGIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class InProcess:
    """One measurement of all cores at work.

    Attributes:
        both: Decoding and model, one image after the other on each core.
        decode: What the same cores would do if they only decoded.
        model: What they would do if pixels came for nothing.
    """

    both: Reading
    decode: Reading
    model: Reading


def open_inprocess(settings: ScoringSettings, pin: ModelPin, seconds: float) -> tuple[LocalModel | None, str]:
    """Start workers with the served model, one per core; or return None and why not.

    Raises:
        ConfigurationError: The archive is not the served model.
    """
    if missing_packages():
        return None, "install the extra imagebatch[local]"
    if not settings.model_archive:
        return None, "give --model-archive, the served model's .mar file"
    longest = max(settings.request_timeout, seconds + _MARGIN_SECONDS)
    local = connect(settings.model_copy(update={"request_timeout": longest}), pin.name, pin.version)
    found = local.describe()
    if found.digest != pin.digest:
        local.close()
        archive = Path(settings.model_archive).name
        raise ConfigurationError(
            f"--model-archive {archive} is {found.digest}, the served model is {pin.digest}: their rates"
            " cannot be compared"
        )
    return local, ""


def measure_inprocess(local: LocalModel, images: Sequence[ImagePayload], seconds: int) -> InProcess:
    """Measure all workers at once, each on its share of the images, from memory."""
    shares = [images[worker :: local.workers] or images for worker in range(local.workers)]
    clock = Clock()
    with ThreadPoolExecutor(local.workers) as threads:
        try:
            replies = list(threads.map(lambda share: local.timed(share, seconds), shares))
        except ApiFaultError as fault:
            raise ModelApiUnavailableError(f"a local worker failed while it was measured: {fault}") from fault
    found = [json.loads(reply) for reply in replies]
    both = clock.reading(
        sum(one["images"] for one in found), rate=sum(one["images"] / one["seconds"] for one in found)
    )
    decode = sum(one["images"] / (one["seconds"] - one["model_seconds"]) for one in found)
    model = sum(one["images"] / max(one["model_seconds"], 1e-9) for one in found)
    return InProcess(
        both, Reading(decode, both.cpu * both.rate / decode), Reading(model, both.cpu * both.rate / model)
    )
