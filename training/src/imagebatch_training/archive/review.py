"""The certainty below which a person should look, chosen on validation images for a stated accuracy."""

import logging
from typing import Any

from imagebatch_training import metrics
from imagebatch_training.archive.reference import reference_logits
from imagebatch_training.errors import DataError
from imagebatch_training.images.data import DataSet
from imagebatch_training.settings import Settings

log = logging.getLogger(__name__)


def review_threshold(settings: Settings, data: DataSet) -> dict[str, Any] | None:
    """Find the least threshold at which the surest validation images reach `release.review_accuracy`.

    The served model is of the block split, whose validation images chose its hyperparameters and its
    temperature, and nothing else was fitted on them. Taking the least of many thresholds flatters a little:
    what the accuracy is on the test images, `imagebatch-train evaluate` says.

    Args:
        settings: Trained weights; the accuracy that is wanted.
        data: With the block split.

    Returns:
        See `metrics.at_least`; None where no accuracy is asked for.

    Raises:
        DataError: No threshold reaches it.
    """
    wanted, least = settings.release.review_accuracy, settings.release.review_images
    if not wanted:
        return None
    members = data.labels.members("block", "validation")
    examples = [data.labels.examples[at] for at in members]
    logits = reference_logits(settings, [example.path(data.images) for example in examples])
    correct = logits.argmax(1) == data.labels.targets()[members]
    confidence = metrics.softmax(logits).max(1)
    found = metrics.threshold_for(confidence, correct, wanted, least)
    if found is None:
        raise DataError(
            f"release.review_accuracy={wanted:g}: no {least} or more of the {len(members)} validation images,"
            f" the surest, are that accurate; all have {correct.mean():.3f}: ask for less, train on more"
            " images, or let release.review_images be fewer"
        )
    log.info(
        "below %.3f a person should look: above are %.0f %% of the validation images, %.3f of them right",
        found["threshold"],
        found["coverage"] * 100,
        found["accuracy"],
    )
    return found
