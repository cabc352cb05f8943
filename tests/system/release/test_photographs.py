"""Another data set by configuration alone: released, run, looked at by people, trained and released again."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest
import sklearn.datasets
from imagebatch_training.cli import main
from PIL import Image

from tests.support import review_exports
from tests.support.registry import mlflow_server
from tests.support.serving import serving
from tests.system.release.conftest import WIDE
from tests.system.release.ground import Ground
from tools.paths import ROOT, VAR

pytestmark = pytest.mark.timeout(900)
# Photographs that installed packages bring: a palace, a flower, a portrait.
_SKLEARN = Path(sklearn.datasets.__file__).parent / "images"
CLASSES = {
    "building": _SKLEARN / "china.jpg",
    "flower": _SKLEARN / "flower.jpg",
    "portrait": Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg",
}
SIDE = 200  # pixels of a part that is cut out
KNOWN, NEW = 40, 60  # parts of each class that are labelled in the beginning, and of the night
NAME = "places"


def cut(folder: Path, count: int, seed: int) -> list[Path]:
    """Cut parts out of each photograph, turned and lit a little differently; return their files."""
    chance = random.Random(seed)
    folder.mkdir()
    made = []
    for name, path in CLASSES.items():
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        for number in range(count):
            left = chance.randrange(picture.width - SIDE)
            top = chance.randrange(picture.height - SIDE)
            part = picture.crop((left, top, left + SIDE, top + SIDE)).rotate(chance.uniform(-10, 10))
            light = chance.uniform(0.7, 1.3)
            file = folder / f"{name}-{number:03}.jpg"
            part.point(lambda value, light=light: min(255, int(value * light))).save(file, quality=90)
            made.append(file)
    return made


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of labelled photographs, and beside it those of the night, which nobody has labelled."""
    root = tmp_path_factory.mktemp("photographs")
    with (root / "known.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label"])
        writer.writerows(
            [str(file.relative_to(root)), file.name.partition("-")[0]] for file in cut(root / "old", KNOWN, 1)
        )
    cut(root / "night", NEW, 2)
    return root / "known.csv"


@pytest.fixture(scope="module")
def ground(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    root = tmp_path_factory.mktemp("release")
    (root / "model_store").mkdir()
    paths = [f"paths.{name}='{root / name}'" for name in ("data", "training", "model_store")]
    words = [
        *paths,
        f"paths.weights='{VAR / 'weights'}'",
        f"paths.handlers='{ROOT / 'handlers'}'",
        "data=csv",
        f"data.name={NAME}",
        f"data.images='{table.parent}'",
        f"data.csv='{table}'",
        "finetune.epochs=1",
        "finetune.learning_rates=[1e-4]",
        "release.review_accuracy=0.9",
        "release.review_images=10",
        *WIDE,
    ]
    with (
        mlflow_server(tmp_path_factory.mktemp("mlflow")) as registry,
        serving(root / "server", root / "model_store", NAME) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("MLFLOW_TRACKING_URI", registry.url)
        assert main(["weights", *words]) == 0
        yield Ground(root, running, registry, table.parent / "night", words, NAME)


@pytest.fixture(autouse=True)
def _tracked(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ground.registry.url)


def test_what_people_say_of_a_night_is_in_the_next_release(ground: Ground, table: Path) -> None:
    """One command to a served champion; a batch; its doubtful pictures to people; their labels, learnt."""
    assert ground.release() == 0
    begun = ground.prepare("night-1", "--review-below", "auto", "--max-class-share", "1")
    assert (begun["model"]["version"], begun["released"]["reference"]) == ("1.0", ground.reference)
    ground.do("score", "--run-id", "night-1")
    predictions = ground.table("night-1").decode().splitlines()
    assert len(predictions) == 1 + NEW * len(CLASSES)

    out = ground.root / "review"
    asked = ("review", "export", "--run-id", "night-1", "--format", "label-studio", "--sample", "45")
    handed = json.loads(ground.do(*asked, "--out", str(out)))
    assert handed["sampled"] == 45
    export = ground.root / "export.json"
    export.write_bytes(review_exports.label_studio(out, lambda image_id: image_id.partition("-")[0]))
    back = ("--format", "label-studio", "--file", str(export), "--images", str(table.parent))
    told = json.loads(
        ground.do("labels", "import", "--run-id", "night-1", *back, "--training-csv", str(table))
    )
    assert told["accuracy"] > 0.9, "crops of three photographs"
    known = KNOWN * len(CLASSES) + handed["pictures"]

    again = ("model.version=1.1", f"paths.training='{ground.root / 'training-2'}'")
    assert ground.release(*again) == 0
    assert ground.champion() == "1.1"
    assert ground.running.versions() == {"1.0": False, "1.1": True}
    report = json.loads((ground.root / "training-2" / "report.json").read_text("utf-8"))
    assert report["data"]["images"] == known
    next_night = ground.prepare("night-2")["model"]
    assert next_night["version"] == "1.1"
    assert next_night["digest"] != begun["model"]["digest"]
