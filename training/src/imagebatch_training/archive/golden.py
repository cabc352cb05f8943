"""Golden images: a few images with the answers that the archive gives here, kept beside it.

The scorer asks about them before the first row of a run, and stops if the server computes something else.
"""

import base64
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from imagebatch_model import ImageModel  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker

from imagebatch_training.archive.loaded import load_archive
from imagebatch_training.errors import DataError
from imagebatch_training.files import read_json

IMAGES = 8
# Other CPUs round differently in the last digits; another model, precision or pixel function is further off.
TOLERANCE = 2e-3


def golden_set(folder: Path, images: Sequence[Path]) -> dict[str, Any]:
    """Ask an unpacked archive about images, through the engine that will serve it.

    Args:
        folder: The archive's files.
        images: Candidates; eight of them are taken, evenly spread.

    Returns:
        The file: `model_digest`, `tolerance`, `images` with name, base64, and the answer as in a reply: of
        all classes, or a score. `tolerance` is of a probability, or a share of the score's range.

    Raises:
        DataError: The archive refuses each of them.
    """
    model = load_archive(folder)
    chosen = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    entries = []
    for path in chosen:
        data = path.read_bytes()
        with suppress(ValueError):  # a score outside its range: such an image proves nothing at the server
            entries.append(
                {"name": path.name, "b64": base64.b64encode(data).decode(), **_answer(model, data)}
            )
    if chosen and not entries:
        raise DataError(f"the archive refuses each of {len(chosen)} images, {chosen[0].name} first")
    return {"model_digest": model.digest, "tolerance": TOLERANCE, "images": entries}


def require_golden(path: Path, model: ImageModel) -> None:
    """Hold a loaded archive to the golden images beside it, where there are any.

    Args:
        path: Of the file that `golden_set` made.
        model: The archive.

    Raises:
        DataError: It is another archive's file, or an image is refused, or an answer is further off than its
            tolerance.
    """
    golden = read_json(path)
    if golden is None:
        return
    if golden["model_digest"] != model.digest:
        raise DataError(f"{path} is of the archive {golden['model_digest']}, this one is {model.digest}")
    for image in golden["images"]:
        try:
            found = _answer(model, base64.b64decode(image["b64"]))
        except ValueError as error:
            raise DataError(f"the archive refuses the golden image {image['name']}: {error}") from error
        worst = _off(image, found, model)
        if worst > golden["tolerance"]:
            raise DataError(
                f"the archive's answer to the golden image {image['name']} is {worst:.2g} off: it computes"
                " something else here"
            )


def _answer(model: ImageModel, data: bytes) -> dict[str, Any]:
    """Answer as a reply does, of all classes."""
    found: dict[str, Any] = model.entry(model.predict(model.infer(model.decode(data)), len(model.labels)))
    return found


def _off(wanted: dict[str, Any], found: dict[str, Any], model: ImageModel) -> float:
    """Return how far an answer is from the one expected, in the unit of the tolerance."""
    if "score" in wanted:
        quantity = model.head.describe()["quantity"]
        whole = {"lowest", "highest"} <= quantity.keys() and quantity["highest"] - quantity["lowest"]
        return float(abs(found["score"] - wanted["score"]) / (whole or max(1.0, abs(wanted["score"]))))
    one, other = (_by_class(answer, model.labels) for answer in (wanted, found))
    return max(abs(other.get(name, 0.0) - value) for name, value in one.items())


def _by_class(answer: dict[str, Any], labels: list[str]) -> dict[Any, float]:
    """Name an answer's probabilities: a softmax tells them by rank, a set of labels by class."""
    ranked = len(answer["labels"]) == len(labels)
    names = answer.get("classes") or (answer["labels"] if ranked else labels)
    return dict(zip(names, answer["probabilities"], strict=True))
