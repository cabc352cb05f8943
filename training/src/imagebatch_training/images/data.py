"""The verb `data`: images where the pipeline finds them, and `labels.csv` with both splits."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from imagebatch_training import settings as conf
from imagebatch_training.files import read_json, sha256_file, sha256_json, write_json
from imagebatch_training.images.duplicates import group_duplicates
from imagebatch_training.images.labels import SPLITS, Labels, check_classes, read_labels, write_labels
from imagebatch_training.images.sources import read_source
from imagebatch_training.images.splits import assign


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Images and labels that are ready for training.

    Attributes:
        images: Folder of the images.
        csv: `labels.csv`.
        labels: What it says.
    """

    images: Path
    csv: Path
    labels: Labels

    def summary(self) -> dict[str, int]:
        """Count images, uncertain images, blocks and images per class."""
        counts = Counter(example.label or "uncertain" for example in self.labels.examples)
        blocks = len({example.block for example in self.labels.examples})
        return {"images": len(self.labels.examples), "blocks": blocks} | dict(sorted(counts.items()))


def ensure_data(settings: conf.Settings) -> DataSet:
    """List the images, copy the shipped example's, and write `labels.csv`. Quick when nothing has changed.

    Raises:
        ConfigurationError: A folder, file or package is missing.
        DataError: There are no images, too few, or labels that do not fit.
    """
    listing = read_source(settings.data)
    classes = check_classes(listing.examples, settings.data.classes)
    described = [[e.image_id, e.label] for e in listing.examples]
    key = sha256_json([asdict(settings.data), described, list(listing.groups), list(listing.parts)])
    path = labels_path(settings)
    record = read_json(path.with_suffix(".json"))
    current = record is not None and path.is_file() and record["key"] == key
    if not (current and sha256_file(path) == record["sha256"]):
        files = [example.path(Path(settings.data.images)) for example in listing.examples]
        assign(listing, settings.data, lambda: group_duplicates(files))
        write_labels(path, Labels(examples=listing.examples, classes=classes))
        write_json(path.with_suffix(".json"), {"key": key, "sha256": sha256_file(path)})
    return require_data(settings)


def require_data(settings: conf.Settings) -> DataSet:
    """Return the data set that `imagebatch-train data` made.

    Raises:
        ConfigurationError: It was not made.
    """
    path = labels_path(settings)
    labels = read_labels(path, settings.data.classes)
    return DataSet(images=Path(settings.data.images), csv=path, labels=labels)


def labels_path(settings: conf.Settings) -> Path:
    """Return the path of `labels.csv`."""
    return Path(settings.paths.data) / settings.data.name / "labels.csv"


def split_sizes(labels: Labels) -> dict[str, dict[str, int]]:
    """Count the labelled images of every part of both splits."""
    return {
        split: {part: len(labels.members(split, part)) for part in ("train", "validation", "test")}
        for split in SPLITS
    }
