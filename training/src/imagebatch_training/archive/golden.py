"""Golden images: a few images with the answers that the archive gives here, kept beside it.

The scorer asks about them before the first row of a run, and stops if the server computes something else.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from imagebatch_model import ImageModel  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
from imagebatch_model import Settings as HandlerSettings

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
    """
    config = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8"))
    threads = torch.get_num_threads()
    model = ImageModel(folder, HandlerSettings.from_config(config))
    chosen = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    entries = [_entry(model, path) for path in chosen]
    torch.set_num_threads(threads)  # the torch engine takes it down to one
    return {"model_digest": model.digest, "tolerance": TOLERANCE, "images": entries}


def require_golden(path: Path, model: Any) -> None:
    """Hold a loaded archive to the golden images beside it, where there are any.

    Args:
        path: Of the file that `golden_set` made.
        model: The archive.

    Raises:
        DataError: It is another archive's file, or an answer is further off than its tolerance.
    """
    golden = read_json(path)
    if golden is None:
        return
    if golden["model_digest"] != model.digest:
        raise DataError(f"{path} is of the archive {golden['model_digest']}, this one is {model.digest}")
    for image in golden["images"]:
        pixels = model.decode(base64.b64decode(image["b64"]))
        answer = model.predict(model.infer(pixels), len(model.labels))
        wanted = dict(zip(image["labels"], image["probabilities"], strict=True))
        found = dict(zip(answer.labels, answer.probabilities, strict=True))
        worst = max(abs(found.get(label, 0.0) - value) for label, value in wanted.items())
        if worst > golden["tolerance"]:
            raise DataError(
                f"the archive's answer to the golden image {image['name']} is {worst:.2g} off: it computes"
                " something else here"
            )


def _entry(model: ImageModel, path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    answer = model.predict(model.infer(model.decode(data)), len(model.labels))
    encoded = base64.b64encode(data).decode("ascii")
    return {"name": path.name, "b64": encoded, **model.entry(answer)}
