"""What archives are compared with: the trained model in eager float32 torch, pixels resized by Pillow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from imagebatch_picture import read, upright  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
from PIL import Image

from imagebatch_training import metrics
from imagebatch_training.export.graphs import load_served_model
from imagebatch_training.files import publish, sha256_file, sha256_json
from imagebatch_training.progress import progress
from imagebatch_training.settings import Settings, cache_path, model_path

_BATCH = 16


def reference_logits(settings: Settings, files: Sequence[Path]) -> metrics.Floats:
    """Compute, or read from the cache, the logits that every archive should give.

    Args:
        settings: Trained weights and input size.
        files: Images.

    Returns:
        float64 (images, classes).
    """
    path = _cache(settings, files)
    if not path.is_file():
        model = load_served_model(model_path(settings))
        batches = [files[i : i + _BATCH] for i in range(0, len(files), _BATCH)]
        with torch.inference_mode():
            logits = [
                model(torch.from_numpy(np.stack([plain_pixels(file, settings) for file in batch]))).numpy()
                for batch in progress(batches, f"eager torch, batches of {_BATCH}")
            ]
        with publish(path) as temporary:
            np.save(temporary, np.concatenate(logits))
    result: metrics.Floats = np.load(path).astype(np.float64)
    return result


def plain_pixels(file: Path, settings: Settings) -> npt.NDArray[np.uint8]:
    """Resize and crop with Pillow what was decoded as in training: uint8 (3, crop, crop)."""
    model = settings.model
    resize, crop = model.resize, model.crop
    picture = read(file.read_bytes(), view=model.view, eighths=model.square.eighths(resize, model.pixels))
    rgb = Image.fromarray(picture.pixels.repeat(3 // picture.pixels.shape[2], axis=2))
    high, wide = ((resize * side) // min(picture.size) for side in picture.size)
    rows, columns = picture.extent
    resized = rgb.resize((wide, high), Image.Resampling.BILINEAR, box=(0, 0, columns, rows))
    resized = Image.fromarray(upright(np.asarray(resized), picture.orientation))
    wide, high = resized.size
    left, top = round((wide - crop) / 2), round((high - crop) / 2)
    cropped = np.asarray(resized.crop((left, top, left + crop, top + crop)))
    if settings.model.contrast != "as-is":
        cropped = _stretched(cropped)
    return np.ascontiguousarray(cropped.transpose(2, 0, 1))


def _stretched(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Spread values so that their 1st percentile is 0 and their 99th 255; one value stays as it is."""
    low, high = np.percentile(values, [1, 99], method="inverted_cdf").astype(np.float64)
    if high <= low:
        return values
    spread = np.floor((values - low) * 255 / (high - low) + 0.5)
    result: npt.NDArray[np.uint8] = np.clip(spread, 0, 255).astype(np.uint8)
    return result


def _cache(settings: Settings, files: Sequence[Path]) -> Path:
    model = [settings.model.resize, settings.model.crop, *settings.model.square.declared().values()]
    model += [settings.model.pixels, sha256_file(model_path(settings)), torch.__version__]
    key = sha256_json([model, [sha256_file(file) for file in files]])[:16]
    return cache_path(settings) / f"reference-{key}.npy"
