"""Models of other heads than a softmax: their archives answer as their own code does, and run."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision
import yaml
from imagebatch_model import ImageModel
from imagebatch_model import Settings as HandlerSettings
from imagebatch_training.archive.layout import lay_out
from imagebatch_training.archive.parity import check_parity
from imagebatch_training.cli import main
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import read_json
from imagebatch_training.imports.report import render
from imagebatch_training.imports.run import Imported, import_model
from imagebatch_training.settings import Settings
from PIL import Image
from torch import nn

from tests.training.imports.tiny import LABELS, SAID, Small, export_onnx, request, textbook
from tests.training.shapes import REPOSITORY

THRESHOLDS = {"bee": 0.35, "fox": 0.6}
LIMITS = np.array([THRESHOLDS.get(label, 0.5) for label in LABELS], np.float32)
MULTILABEL: dict[str, Any] = {**SAID, "head": "multilabel", "thresholds": THRESHOLDS}
QUANTITY: dict[str, Any] = {"name": "thickness", "unit": "mm", "lowest": -50, "highest": 50}
REGRESSION: dict[str, Any] = {**SAID, "head": "regression", "quantity": QUANTITY}
Rows = list[npt.NDArray[np.float32]]


class Sigmoids(nn.Module):
    """The small model with a sigmoid for each class."""

    def __init__(self, small: Small) -> None:
        super().__init__()
        self.small = small

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(x).sigmoid()


class Measure(nn.Module):
    """One number by colour and place, of the shape that `squeeze` leaves."""

    def __init__(self, small: Small) -> None:
        super().__init__()
        self.small = small

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.small(x)
        return (logits * torch.linspace(-1, 1, len(LABELS))).sum(1)


@pytest.fixture(scope="module")
def sigmoids(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(Sigmoids(small), tmp_path_factory.mktemp("sigmoids") / "tags.onnx")


@pytest.fixture(scope="module")
def measure(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(Measure(small), tmp_path_factory.mktemp("measure") / "gauge.onnx")


def own_answers(model: nn.Module, images: Path) -> Rows:
    """What the model's own code answers, by Pillow and torch alone."""
    rows = []
    for file in sorted(images.iterdir()):
        with torch.inference_mode(), Image.open(file) as picture:
            rows.append(model(torch.from_numpy(textbook(picture))).reshape(-1).numpy())
    return rows


def write_table(path: Path, images: Path, columns: Sequence[str], rows: Rows) -> Path:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", *columns])
    for file, row in zip(sorted(images.iterdir()), rows, strict=True):
        writer.writerow([file.name, *(f"{value:.6f}" for value in row)])
    path.write_text(text.getvalue())
    return path


@pytest.fixture(scope="module")
def expected_tags(small: Small, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tags") / "expected.csv"
    return write_table(path, images, LABELS, own_answers(Sigmoids(small), images))


@pytest.fixture(scope="module")
def expected_scores(small: Small, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "expected.csv"
    return write_table(path, images, ["score"], own_answers(Measure(small), images))


def unpacked(imported: Imported, folder: Path) -> ImageModel:
    with zipfile.ZipFile(imported.path) as archive:
        archive.extractall(folder)
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    return ImageModel(folder, HandlerSettings.from_config(config))


def whole_run(imported: Imported, images: Path, folder: Path) -> list[dict[str, str]]:
    """Score a folder with the product itself, in its own environment, and verify what it says."""
    imagebatch = str(REPOSITORY / "pipeline_image/.venv/bin/imagebatch")
    common = ["--run-id", "r", "--runs-uri", str(folder / "runs")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IMAGEBATCH_")}
    store = imported.path.parent
    argv = [imagebatch, "run", *common, "--input", str(images), "--model", imported.path.stem]
    argv += ["--backend", "local", "--model-archive", str(imported.path), "--local-workers", "1"]
    argv += ["--golden", str(store / "{model}.golden.json")]
    for command in (argv, [imagebatch, "verify", *common]):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-500:]
    with (folder / "runs/r/output/predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.timeout(600)  # a worker loads torch, on a machine that may be busy
def test_a_multilabel_model_is_imported_and_runs(
    *,
    sigmoids: Path,
    small: Small,
    images: Path,
    labels: Path,
    expected_tags: Path,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """Sigmoids are undone in the graph: probabilities and sets of labels are those of the own code."""
    asked = request(sigmoids, labels=labels, images=images, expect=expected_tags, flags=MULTILABEL)
    imported = import_model(settings, asked, tmp_path)
    certificate = imported.certificate
    assert [one["agreement"] for one in certificate["sets"]] == [1.0, 1.0]
    assert certificate["preprocessing"]["outputs"] == "probabilities"
    assert certificate["preprocessing"]["thresholds"] == THRESHOLDS
    assert "images: the same labels on 24 of 24" in render(imported)
    assert "thresholds     bee 0.35, fox 0.6" in render(imported)
    record = read_json(imported.path.with_suffix(".json"))
    assert (record["head"], record["thresholds"]) == ("multilabel", LIMITS.astype(str).astype(float).tolist())
    assert unpacked(imported, tmp_path / "archive").embedding == 48
    with pytest.raises(ConfigurationError, match="has a multilabel head: only the classes of a softmax"):
        check_parity(settings, imported.path)

    rows = whole_run(imported, images, tmp_path)
    counts = set()
    for row, own in zip(rows, own_answers(Sigmoids(small), images), strict=True):
        found = np.array([float(row[f"probability_{label}"]) for label in LABELS])
        assert np.abs(found - own).max() < 0.03
        for label, value, limit in zip(LABELS, own, LIMITS, strict=True):
            assert (label in row["labels"].split("|")) == (value >= limit) or abs(value - limit) < 0.03
        counts.add(row["labels"].count("|"))
    assert len(counts) > 1


@pytest.mark.timeout(600)  # as above
def test_a_regression_is_imported_and_runs(
    *, measure: Path, small: Small, images: Path, expected_scores: Path, settings: Settings, tmp_path: Path
) -> None:
    """A score of its own name, unit and limits; there are no labels."""
    asked = request(measure, images=images, expect=expected_scores, flags=REGRESSION)
    imported = import_model(settings, asked, tmp_path)
    own = np.array(own_answers(Measure(small), images))[:, 0]
    library, told = imported.certificate["sets"]
    assert (library["agreement"], told["agreement"]) == (1.0, 1.0)
    assert library["score_change"]["spread"] < own.max() - own.min()
    assert library["score_change"]["largest"] < 0.05 * library["score_change"]["spread"]
    assert imported.certificate["threshold"] == {
        "agreement": 0.995,
        "score_change": 0.02,
        "same_score": 0.05,
    }
    assert "images: the same score on 24 of 24" in render(imported)
    assert "quantity       name thickness, unit mm" in render(imported)
    assert read_json(imported.path.with_suffix(".json"))["quantity"] == QUANTITY
    with zipfile.ZipFile(imported.path) as archive:
        assert "index_to_name.json" not in archive.namelist()
    with pytest.raises(ConfigurationError, match="has a regression head"):
        check_parity(settings, imported.path)

    rows = whole_run(imported, images, tmp_path)
    scores = np.array([float(row["score"]) for row in rows])
    assert np.abs(scores - own).max() < 0.05 * library["score_change"]["spread"]


@pytest.mark.parametrize(("head", "values"), [("multilabel", 3), ("multilabel", 1), ("regression", 1)])
def test_weights_of_resnet18_with_another_head(
    *, head: str, values: int, images: Path, settings: Settings, tmp_path: Path
) -> None:
    """A state_dict whose last layer has another number of outputs, also one, with torchvision's values."""
    torch.manual_seed(2)
    network = torchvision.models.resnet18(num_classes=values).eval()
    torch.save(network.state_dict(), tmp_path / "own.pth")
    flags: dict[str, Any] = {"head": head, "crop": 64, "resize": 72}
    labels = None
    if head == "regression":
        flags["quantity"] = {"name": "age"}
    else:
        labels = tmp_path / "names.txt"
        labels.write_text("\n".join(LABELS[:values]))
    asked = request(
        tmp_path / "own.pth", arch="torchvision:resnet18", labels=labels, images=images, flags=flags
    )
    imported = import_model(settings, asked, tmp_path)
    assert imported.certificate["sets"][0]["agreement"] == 1.0
    model = unpacked(imported, tmp_path / "archive")
    assert (model.head.name, model.head.outputs, model.embedding) == (head, values, 512)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"channel_order": "bgr"}, "Cause: swapped channels; with --channel-order rgb on 24 of 24"),
    "range": ({"pixel_range": "0-255"}, "Cause: wrong value range; with --pixel-range 0-1 on 24 of 24"),
    "normalisation": (
        {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        "Cause: wrong normalisation; with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 on 24 of 24",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("head", ["multilabel", "regression"])
def test_wrong_preprocessing_is_named(
    *,
    head: str,
    wrong: str,
    labels: Path,
    images: Path,
    settings: Settings,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """By the probabilities of all classes, or by scores, as by the classes of a softmax."""
    from tests.training.imports.tiny import request as asking  # noqa: PLC0415 - pytest has the name

    several = head == "multilabel"
    model = request.getfixturevalue("sigmoids" if several else "measure")
    expected = request.getfixturevalue("expected_tags" if several else "expected_scores")
    said, message = WRONG[wrong]
    asked = asking(
        model,
        labels=labels if several else None,
        images=images,
        expect=expected,
        flags=(MULTILABEL if several else REGRESSION) | said,
    )
    with pytest.raises(DataError) as refused:
        import_model(settings, asked, tmp_path)
    words = "gives the labels of expected.csv on" if several else "gives the score of expected.csv on"
    assert words in str(refused.value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path(settings.paths.model_store).exists()


def _twice(rows: Rows) -> Rows:
    return [1 / (1 + np.exp(-row)) for row in rows]


def _turned(rows: Rows) -> Rows:
    return [row[[1, 0, 2, 3, 4, 5]] for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_twice, "Cause: a sigmoid too many in what is expected"),
        (_turned, "the labels are in another order: what is called 'ant' is 'bee'"),
        (lambda rows: rows[::-1], "nothing else that was tried explains it"),
    ],
)
def test_what_else_is_wrong_with_expected_probabilities_is_named(
    *,
    change: Callable[[Rows], Rows],
    message: str,
    sigmoids: Path,
    small: Small,
    images: Path,
    labels: Path,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """As for a softmax: once too often, labels in another order, and what nothing explains."""
    rows = change(own_answers(Sigmoids(small), images))
    expected = write_table(tmp_path / "other.csv", images, LABELS, rows)
    asked = request(sigmoids, labels=labels, images=images, expect=expected, flags=MULTILABEL)
    with pytest.raises(DataError, match=message):
        import_model(settings, asked, tmp_path)


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_outputs_that_are_something_else_are_refused(
    *,
    outputs: str,
    sigmoids: Path,
    onnx: Path,
    images: Path,
    labels: Path,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """By the sigmoid that the graph ends with, or by values that are no probabilities."""
    source, message = (
        (sigmoids, "sigmoid twice: the model ends with one")
        if outputs == "logits"
        else (onnx, "sigmoid is missing: the model's outputs lie between")
    )
    asked = request(source, labels=labels, images=images, flags=MULTILABEL | {"outputs": outputs})
    with pytest.raises(DataError, match=message):
        import_model(settings, asked, tmp_path)


class Clipped(nn.Module):
    """Values between 0 and 1 that may be logits as well as probabilities."""

    def __init__(self, small: Small) -> None:
        super().__init__()
        self.small = small

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.small(x) / 40 + 0.5).clamp(0.1, 0.9)


def test_outputs_that_may_be_either_must_be_declared(
    *, small: Small, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """Nothing is guessed: the same file becomes two archives, by what is said of it."""
    path = export_onnx(Clipped(small), tmp_path / "clipped.onnx")
    with pytest.raises(ConfigurationError, match="say --outputs probabilities where it ends with sigmoids"):
        import_model(settings, request(path, labels=labels, images=images, flags=MULTILABEL), tmp_path)
    file = min(images.iterdir())
    found = {}
    for outputs in ("logits", "probabilities"):
        asked = request(path, labels=labels, images=images, flags=MULTILABEL | {"outputs": outputs})
        model = unpacked(import_model(settings, asked, tmp_path), tmp_path / outputs)
        answer = model.predict(model.infer(model.decode(file.read_bytes())), 1)
        found[outputs] = np.array(answer.probabilities)
    raw = found["probabilities"]
    assert raw.min() >= 0.0999
    assert found["logits"] == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-5)


def test_a_softmax_of_sigmoids_and_sigmoids_of_a_softmax_are_told(
    *, sigmoids: Path, small: Small, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """A usual mistake that the numbers show; it is a note, as it may be meant."""
    assert small.softmax is False
    imported = import_model(settings, request(sigmoids, labels=labels, images=images), tmp_path)
    assert "note: the model's outputs lie between 0 and 1 and do not sum to 1" in render(imported)
    path = export_onnx(Small(softmax=True), tmp_path / "one.onnx")
    imported = import_model(settings, request(path, labels=labels, images=images, flags=MULTILABEL), tmp_path)
    assert "note: the model's outputs sum to 1 on every image: of a softmax" in render(imported)


def test_scores_outside_the_limits_are_counted_and_no_golden_images(
    *, measure: Path, small: Small, images: Path, settings: Settings, tmp_path: Path
) -> None:
    """A run refuses such answers; where all are outside, the limits or the preprocessing are wrong."""
    own = np.array(own_answers(Measure(small), images))[:, 0]
    middle = round(float(np.median(own)), 3)
    flags = REGRESSION | {"quantity": {"name": "thickness", "highest": middle}}
    imported = import_model(settings, request(measure, images=images, flags=flags), tmp_path)
    outside = imported.certificate["sets"][0]["out_of_range"]
    assert 9 <= outside <= 15
    assert f"; {outside} outside the limits: a run lists such as failures" in render(imported)
    golden = read_json(imported.path.with_name("gauge.golden.json"))["images"]
    assert golden
    assert max(image["score"] for image in golden) <= middle
    flags = REGRESSION | {"quantity": {"name": "thickness", "highest": -1000}}
    with pytest.raises(DataError, match="none of the 24 images is within the limits of --quantity"):
        import_model(settings, request(measure, images=images, flags=flags), tmp_path)


class Dead(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -x.abs().mean((1, 2, 3)).relu() * 0


def test_scores_that_are_all_alike_prove_nothing(settings: Settings, tmp_path: Path) -> None:
    """No wrong preprocessing could be told by them."""
    path = export_onnx(Dead(), tmp_path / "dead.onnx")
    with pytest.raises(DataError, match=r"the score of all 16 images by onnxruntime .* proves nothing"):
        import_model(settings, request(path, flags=REGRESSION), tmp_path)


@pytest.mark.parametrize(
    ("source", "flags", "message"),
    [
        ("onnx", {"threshold": 0.4}, "a flag: threshold says nothing about head softmax"),
        ("onnx", {"quantity": {"name": "x"}}, "quantity says nothing .* or give --head regression"),
        ("onnx", {"head": "multilabel", "threshold": 0.0}, "must be above 0 and at most 1: got 0.0"),
        (
            "onnx",
            {"head": "multilabel", "thresholds": {"cow": 0.3}},
            '"cow", which is no label of labels.txt',
        ),
        (
            "torchvision:resnet18",
            {"head": "multilabel"},
            "published as one class of several: leave out --head",
        ),
        ("onnx", {"head": "ranking"}, "head must be softmax or multilabel or regression: got 'ranking'"),
        ("onnx", {"head": "multilabel", "thresholds": [0.3]}, "thresholds must hold keys and values"),
        ("onnx", {"head": "multilabel", "threshold": "0.3"}, "threshold must be a number"),
        ("onnx", {"head": "regression"}, "nobody says what the score is: give --quantity"),
        ("onnx", {"head": "regression", "quantity": {"name": "x"}}, "a regression has no labels"),
        ("measure", {"head": "regression", "quantity": {"unit": "mm"}}, "quantity.name must say what"),
        ("measure", {"head": "regression", "quantity": {"name": "x", "lowest": 5, "highest": 1}}, "below"),
        (
            "measure",
            {"head": "regression", "quantity": {"name": "x"}, "outputs": "logits"},
            "a flag: outputs says nothing about head regression",
        ),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(
    *,
    source: str,
    flags: dict[str, Any],
    message: str,
    labels: Path,
    settings: Settings,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """In one line, before any image is looked at."""
    from tests.training.imports.tiny import request as asking  # noqa: PLC0415 - pytest has the name

    asked = asking(
        source if ":" in source else request.getfixturevalue(source),
        labels=labels if source == "onnx" else None,
        flags=SAID | flags,
    )
    with pytest.raises(ConfigurationError, match=message) as refused:
        import_model(settings, asked, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_number_of_outputs_that_a_head_has_not_is_refused(
    *, onnx: Path, measure: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """With the head that fits."""
    with pytest.raises(DataError, match="needs two classes or more: --head regression"):
        import_model(settings, request(measure, labels=labels), tmp_path)
    with pytest.raises(DataError, match="answers 6 numbers to an image, and a regression has one"):
        import_model(settings, request(onnx, flags=REGRESSION), tmp_path)
    twins = tmp_path / "twins.txt"
    twins.write_text("\n".join(["ant", *LABELS[:5]]))
    with pytest.raises(ConfigurationError, match='two classes of a multilabel head are named "ant"'):
        import_model(settings, request(onnx, labels=twins, flags=MULTILABEL), tmp_path)


def test_flags_and_files_declare_a_head(
    *,
    sigmoids: Path,
    measure: Path,
    images: Path,
    labels: Path,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command: single thresholds as a flag or a file, and everything as keys of --preprocessing."""
    paths = [f"paths.{name}='{getattr(settings.paths, name)}'" for name in ("model_store", "handlers")]
    pixels = ["--crop", "32", "--resize", "40", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    some = ["--images", str(images), "--most-images", "4", "--json", *pixels, *paths]
    tags = ["import", str(sigmoids), "--labels", str(labels), "--head", "multilabel", *some]
    limits = tmp_path / "limits.yaml"
    limits.write_text("bee: 0.3\nfox: 0.65\n")
    for text in ("bee=0.3,fox=0.65", str(limits)):
        assert main([*tags, "--threshold", "0.4", "--thresholds", text]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["thresholds"] == [0.4, 0.3, 0.4, 0.4, 0.4, 0.65]
    gauge = ["import", str(measure), *some]
    quantity = "name=thickness,unit=mm,lowest=-50,highest=50.5"
    assert main([*gauge, "--head", "regression", "--quantity", quantity]) == 0
    declared = QUANTITY | {"highest": 50.5}
    assert json.loads(capsys.readouterr().out)["quantity"] == declared
    file = tmp_path / "gauge.yaml"
    file.write_text(yaml.safe_dump({"head": "regression", "quantity": declared}))
    assert main([*gauge, "--preprocessing", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["quantity"] == declared
    for wrong in ("bee=", "bee=much", "bee=0.3,bee=0.4", str(tmp_path / "none.yaml")):
        with pytest.raises(SystemExit):
            main([*tags, "--thresholds", wrong])
        assert "argument --thresholds" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["multilabel", "regression"])
def test_an_archive_is_laid_out_for_kserve(
    *,
    head: str,
    images: Path,
    labels: Path,
    settings: Settings,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Its golden images are asked about as the scorer does, and the card tells the head."""
    from tests.training.imports.tiny import request as asking  # noqa: PLC0415 - pytest has the name

    several = head == "multilabel"
    model = request.getfixturevalue("sigmoids" if several else "measure")
    flags = MULTILABEL if several else REGRESSION
    imported = import_model(
        settings, asking(model, labels=labels if several else None, images=images, flags=flags), tmp_path
    )
    handlers = Path(settings.paths.handlers)
    made = lay_out(imported.path, tmp_path / "storage", handlers)
    assert made["left_out"] == ""
    card = json.loads((tmp_path / "storage" / made["name"] / "card.json").read_text())
    assert card["head"] == head
    assert card.get("quantity") == (None if several else QUANTITY)
    assert len(card.get("thresholds", [])) == (len(LABELS) if several else 0)
    beside = imported.path.with_name(f"{imported.path.stem}.golden.json")
    golden = read_json(beside)
    if several:
        golden["images"][0]["probabilities"][5] -= 0.01
    else:
        golden["images"][0]["score"] += 0.003 * (QUANTITY["highest"] - QUANTITY["lowest"])
    beside.write_text(json.dumps(golden))
    with pytest.raises(DataError, match="it computes something else here"):
        lay_out(imported.path, tmp_path / "other", handlers)
