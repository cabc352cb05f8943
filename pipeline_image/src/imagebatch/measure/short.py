"""The short form at the end of scoring (--bench): one reading of each ceiling, beside the rate just reached.

A few seconds, and a few images of the run. It goes to the log and to the run's telemetry; the result of the
run, its certificate included, is the same with it and without.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict

from imagebatch.contracts.records import RunDescription
from imagebatch.errors import ImagebatchError
from imagebatch.inputs.source import image_source
from imagebatch.log import get_logger
from imagebatch.measure.clock import Figure, Reading
from imagebatch.measure.images import coded_as, read_sample
from imagebatch.measure.inprocess import measure_inprocess, open_inprocess
from imagebatch.measure.server import server_ceiling
from imagebatch.measure.storage import read_ceiling
from imagebatch.measure.verdict import Ceiling, verdict
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ImagePayload
from imagebatch.runs.folder import RunFolder
from imagebatch.settings import ScoringSettings

log = get_logger()

_SECONDS = 2
_IMAGES = 128


def short_bench(
    run: RunFolder,
    description: RunDescription,
    settings: ScoringSettings,
    uris: Sequence[str],
    *,
    achieved: float,
    name: str,
) -> None:
    """Measure, log one line and write `telemetry/bench-{name}.json`; never fail a run that is scored.

    Args:
        run: The run's files.
        description: run.json.
        settings: How it was scored.
        uris: Images of the run, at least one.
        achieved: Images per second that scoring has just reached.
        name: What was scored.
    """
    try:
        source = image_source(description)
        images = read_sample(uris, source, _IMAGES)
        figures = _measured(description, settings, uris, images)
        figures[Ceiling.ACHIEVED] = Figure.of([Reading(achieved, 0.0)])
        found = verdict(figures, coded_as(images))
    except ImagebatchError as error:
        log.warning("the ceilings could not be measured", error=str(error))
        return
    rates = {ceiling.value: round(figure.rate, 1) for ceiling, figure in figures.items()}
    content = {"images_per_second": rates, **asdict(found), "line": found.line}
    run.write(f"telemetry/bench-{name}.json", (json.dumps(content) + "\n").encode())
    log.info(found.line, **rates)


def _measured(
    description: RunDescription,
    settings: ScoringSettings,
    uris: Sequence[str],
    images: Sequence[ImagePayload],
) -> dict[Ceiling, Figure]:
    pin = description.model
    source = image_source(description)
    readings = {Ceiling.STORAGE: read_ceiling(source, uris[:_IMAGES], settings.in_flight + 1, 1)}
    with closing(open_backend(description.backend, settings, pin.name, pin.version)) as api:
        if api.has_server:
            readings[Ceiling.SERVER] = server_ceiling(
                api,
                images,
                pack_size=settings.pack_size,
                in_flight=settings.in_flight,
                top_k=description.top_k,
                seconds=_SECONDS,
            )
    local, missing = open_inprocess(settings, pin, _SECONDS)
    if local is None:
        log.info("in-process ceilings not measured", do=missing)
    else:
        found = measure_inprocess(local, images, _SECONDS)
        local.close()
        readings |= {Ceiling.DECODE: found.decode, Ceiling.MODEL: found.model, Ceiling.IN_PROCESS: found.both}
    return {ceiling: Figure.of([reading]) for ceiling, reading in readings.items()}
