"""The suite `images`: look at a sample of the images themselves. It warns, unless a limit is set."""

from __future__ import annotations

from collections import Counter

from imagebatch.contracts.allowance import allowed_failures
from imagebatch.contracts.layout import quality_path
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import DataRefusedError, one_line
from imagebatch.images.checks import Check, findings, findings_json, suspects
from imagebatch.images.decoders import Decoders
from imagebatch.images.sample import image_sample
from imagebatch.log import get_logger
from imagebatch.runs.folder import RunFolder
from imagebatch.settings import CheckSettings

log = get_logger()

_NAMED = 3


def check_images(run: RunFolder, description: RunDescription, settings: CheckSettings) -> tuple[int, str]:
    """Look at the sample and keep what was found as quality/images.json.

    Returns:
        How many checks there are, and where the findings are.

    Raises:
        DataRefusedError: More images of the sample are suspect than the setting allows.
    """
    with Decoders() as decoders:
        sample = image_sample(run, description, settings.image_sample, decoders)
    found = findings(sample)
    path = quality_path("images")
    run.write(path, findings_json(sample.num_rows, found))
    counts = Counter(row["check"] for row in found)
    suspect, allowance = suspects(found), settings.max_suspect_images
    if suspect:
        log.warning("suspect images", suspect=suspect, looked_at=sample.num_rows, **counts)
    if allowance and suspect > allowed_failures(allowance, sample.num_rows):
        some = ", ".join(one_line(row["image_id"], 40) for row in found[:_NAMED])
        said = ", ".join(f"{number} {check.replace('_', ' ')}" for check, number in counts.most_common())
        raise DataRefusedError(
            f"images: {suspect} of {sample.num_rows} images looked at are suspect ({said}), {allowance} are"
            f" allowed (--max-suspect-images), such as {some}; all of them in {run.uri}/{path}"
        )
    return len(Check), f"{run.uri}/{path}"
