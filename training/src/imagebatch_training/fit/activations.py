"""Activations below the first trained block: what never changes during training is computed once.

OpenVINO computes them, at about three times eager torch's speed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker
import torch
from torch import nn

from imagebatch_training.backbone.mobilenet import Convention, CutNetwork, Network, Normalise, pool
from imagebatch_training.cut import WHOLE
from imagebatch_training.files import publish, sha256_json
from imagebatch_training.fit.views import views
from imagebatch_training.images.pixels import Pixels
from imagebatch_training.progress import progress

Activations = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]


class FrozenNetwork(nn.Module):
    """The network as it comes, with two outputs.

    Args:
        network: With its ImageNet weights.
        convention: Of those weights.
        first: First block that will be trained.
    """

    def __init__(self, network: Network, convention: Convention, first: int) -> None:
        super().__init__()
        self.below = nn.Sequential(Normalise(convention), *network.features[:first])
        self.above = network.features[first:]
        self.pooling = pooling_of(network)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn uint8 (1, 3, side, side) into the input of block `first` and pooled features (1, width)."""
        activations = self.below(x)
        return activations, pool(self.above(activations), self.pooling)


def pooling_of(network: Network) -> tuple[str, ...]:
    """Return the statistics that a network's features are."""
    return network.pooling if isinstance(network, CutNetwork) else WHOLE.pooling


def load_activations(
    pixels: Pixels,
    network: Network,
    convention: Convention,
    *,
    first: int,
    key: str,
    cache: Path,
    augment: Sequence[str] = (),
) -> tuple[Activations, Features]:
    """Compute the input of `network.features[first]` and the frozen features for every view of every image.

    Args:
        pixels: uint8 (images, 1 or 3, side, side).
        network: With its frozen weights.
        convention: Of those weights.
        first: First block that is trained.
        key: Changes with the pixels, the weights and where the network ends.
        cache: Folder for the results; another key's results there are removed.
        augment: What further views are made, by name.

    Returns:
        float32 arrays (views, images, channels, height, width), memory-mapped, and (views, images, width);
        view 0 is the image as it is.
    """
    seen = views(augment)
    name = sha256_json([key, first, len(seen), *sorted(augment)])[:16]
    paths = cache / f"activations-{name}.npy", cache / f"features-{name}.npy"
    if not all(path.is_file() for path in paths):
        for stale in [*cache.glob("activations-*.npy"), *cache.glob("features-*.npy")]:
            stale.unlink()
        frozen = FrozenNetwork(network, convention, first).eval()
        with publish(paths[0]) as temporary, publish(paths[1]) as temporary_features:
            _compute(pixels, frozen, seen, (temporary, temporary_features))
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1])


def _compute(
    pixels: Pixels,
    frozen: nn.Module,
    seen: Sequence[Callable[[Pixels], Pixels]],
    paths: tuple[Path, Path],
) -> None:
    side = pixels.shape[-1]
    compiled = _compile(frozen, side)
    results = [
        np.lib.format.open_memmap(path, "w+", np.float32, (len(seen), len(pixels), *tuple(output.shape)[1:]))
        for path, output in zip(paths, compiled.outputs, strict=True)
    ]

    def keep(request: ov.InferRequest, place: tuple[int, int]) -> None:
        for number, result in enumerate(results):
            result[place] = request.get_output_tensor(number).data[0]

    queue = ov.AsyncInferQueue(compiled)
    queue.set_callback(keep)
    places = [(number, i) for number in range(len(seen)) for i in range(len(pixels))]
    for number, i in progress(places, "computing frozen activations"):
        image = np.broadcast_to(seen[number](pixels[i]), (3, side, side))
        queue.start_async([np.ascontiguousarray(image)[None]], (number, i))
    queue.wait_all()
    for result in results:
        result.flush()


def _compile(frozen: nn.Module, side: int) -> ov.CompiledModel:
    example = torch.zeros((1, 3, side, side), dtype=torch.uint8)
    model = ov.convert_model(torch.export.export(frozen, (example,)))
    model.reshape(list(example.shape))  # the conversion forgets the sizes
    # One image at a time on every core is fastest in float32; the hint keeps CPUs with AMX out of bfloat16.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    return ov.Core().compile_model(model, "CPU", options)
