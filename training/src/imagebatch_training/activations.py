"""Activations below the first trained block: what never changes during training is computed once.

OpenVINO computes them, at about three times eager torch's speed.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
import torch
from torch import nn
from torchvision.models import MobileNetV2

from imagebatch_training.backbone import Convention, Normalise
from imagebatch_training.files import publish, sha256_json
from imagebatch_training.pixels import Pixels
from imagebatch_training.progress import progress

Activations = npt.NDArray[np.float32]

VIEWS = 4
"""As is, mirrored left to right, top to bottom, and both: what a cell in its module may look like as well."""


def load_activations(
    pixels: Pixels, network: MobileNetV2, convention: Convention, *, first: int, key: str, cache: Path
) -> Activations:
    """Compute the input of `network.features[first]` for every view of every image.

    Args:
        pixels: uint8 (images, 1 or 3, side, side).
        network: With its frozen weights.
        convention: Of those weights.
        first: First block that is trained.
        key: Changes with the pixels and the weights.
        cache: Folder for the result; another key's result there is removed.

    Returns:
        float32 array (views, images, channels, height, width), memory-mapped; view 0 is the image as it is.
    """
    path = cache / f"activations-{sha256_json([key, first, VIEWS])[:16]}.npy"
    if not path.is_file():
        for stale in cache.glob("activations-*.npy"):
            stale.unlink()
        frozen = nn.Sequential(Normalise(convention), *network.features[:first]).eval()
        with publish(path) as temporary:
            _compute(pixels, frozen, temporary)
    return np.load(path, mmap_mode="r")


def view(pixels: Pixels, number: int) -> Pixels:
    """Mirror (…, height, width): bit 0 of `number` left to right, bit 1 top to bottom."""
    if number & 1:
        pixels = pixels[..., ::-1]
    if number & 2:
        pixels = pixels[..., ::-1, :]
    return pixels


def _compute(pixels: Pixels, frozen: nn.Module, path: Path) -> None:
    side = pixels.shape[-1]
    queue = _compile(frozen, side)
    shape = queue[0].get_compiled_model().output(0).shape[1:]
    result = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=(VIEWS, len(pixels), *tuple(shape))
    )

    def keep(request: ov.InferRequest, place: tuple[int, int]) -> None:
        result[place] = request.get_output_tensor(0).data[0]

    queue.set_callback(keep)
    places = [(number, i) for number in range(VIEWS) for i in range(len(pixels))]
    for number, i in progress(places, "computing frozen activations"):
        image = np.broadcast_to(view(pixels[i], number), (3, side, side))
        queue.start_async([np.ascontiguousarray(image)[None]], (number, i))
    queue.wait_all()
    result.flush()


def _compile(frozen: nn.Module, side: int) -> ov.AsyncInferQueue:
    example = torch.zeros((1, 3, side, side), dtype=torch.uint8)
    with torch.no_grad():
        model = ov.convert_model(frozen, example_input=example, input=[(1, 3, side, side)])
    # One image at a time on every core is the fastest in float32; the hint keeps CPUs with AMX out of bfloat16.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    return ov.AsyncInferQueue(ov.Core().compile_model(model, "CPU", options))
