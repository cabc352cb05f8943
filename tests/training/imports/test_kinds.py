"""Each kind of model becomes an archive that answers as the model's own library does."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
import yaml
from imagebatch_model import ImageModel
from imagebatch_model import Settings as HandlerSettings
from imagebatch_training.archive.golden import TOLERANCE
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import read_json, sha256_file
from imagebatch_training.imports.report import render
from imagebatch_training.imports.run import Imported, import_model
from imagebatch_training.settings import Settings
from torch import nn

from tests.training.imports.tiny import (
    CROP,
    LABELS,
    SAID,
    Small,
    export_onnx,
    probabilities,
    request,
    save_script,
)


def unpacked(imported: Imported, folder: Path) -> ImageModel:
    """The archive as its server loads it."""
    with zipfile.ZipFile(imported.path) as archive:
        archive.extractall(folder)
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    return ImageModel(folder, HandlerSettings.from_config(config))


def write_ir(small: Small, folder: Path) -> Path:
    graph = ov.convert_model(torch.export.export(small, (torch.zeros(1, 3, CROP, CROP),)))
    ov.save_model(graph, folder / "small.xml", compress_to_fp16=False)
    return folder / "small.xml"


KINDS: dict[str, Callable[[Small, Path], Path]] = {
    "onnx": lambda small, folder: export_onnx(small, folder / "small.onnx"),
    "openvino": write_ir,
    "torchscript": lambda small, folder: save_script(small, folder / "small.pt"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_becomes_an_archive(
    *, kind: str, small: Small, images: Path, labels: Path, expected: Path, settings: Settings, tmp_path: Path
) -> None:
    """Its answers are those of the user's own code, and its certificate says what it was proved by."""
    asked = request(KINDS[kind](small, tmp_path), labels=labels, images=images, expect=expected)
    imported = import_model(settings, asked, tmp_path)
    assert imported.certificate["reference"]["source"] == kind
    assert [one["agreement"] for one in imported.certificate["sets"]] == [1.0, 1.0]
    model = unpacked(imported, tmp_path / "archive")
    assert model.embedding == 48
    for file in sorted(images.iterdir())[:6]:
        answer = model.predict(model.infer(model.decode(file.read_bytes())), len(LABELS))
        own = probabilities(small, file)
        assert answer.labels[0] == LABELS[int(own.argmax())]
        assert np.abs(np.array(answer.probabilities) - np.sort(own)[::-1]).max() < 0.02


def test_what_is_left_beside_the_archive(
    *, exported: Path, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """Record, certificate and golden images belong to this archive, and the certificate is in it, too."""
    imported = import_model(
        settings, request(exported, labels=labels, images=images, name="my cells"), tmp_path
    )
    store = Path(settings.paths.model_store)
    assert {file.name for file in store.iterdir()} == {
        "my-cells.mar",
        "my-cells.json",
        "my-cells.parity.json",
        "my-cells.golden.json",
    }
    record = read_json(store / "my-cells.json")
    assert record["mar_sha256"] == sha256_file(imported.path)
    assert record["import"]["files"] == {"small.pt2": sha256_file(exported)}
    assert read_json(store / "my-cells.golden.json")["model_digest"] == record["digest"]
    with zipfile.ZipFile(imported.path) as archive:
        assert json.loads(archive.read("parity.json")) == read_json(store / "my-cells.parity.json")
        assert json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelName"] == "my-cells"
    model = unpacked(imported, tmp_path / "archive")
    assert (model.digest, model.parity) == (record["digest"], record["parity"])
    golden = read_json(store / "my-cells.golden.json")["images"]
    assert len(golden) == 8
    assert TOLERANCE > 0
    text = render(imported)
    assert "images: the same class on 24 of 24" in text
    assert f"6 classes      {', '.join(LABELS[:3])}, …" in text


def test_the_same_model_gives_the_same_archive(
    *, onnx: Path, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """Byte for byte."""
    asked = request(onnx, labels=labels, images=images)
    first = import_model(settings, asked, tmp_path).path.read_bytes()
    assert import_model(settings, asked, tmp_path).path.read_bytes() == first


class Awkward(nn.Module):
    """uint8, channels last, BGR, 0 to 255, two outputs, a softmax, and a shape of (1, classes, 1, 1)."""

    def __init__(self, small: Small) -> None:
        super().__init__()
        self.small = small
        self.register_buffer("mean", torch.tensor(SAID["mean"]).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(SAID["std"]).view(1, 3, 1, 1) * 255)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = x.to(torch.float32).permute(0, 3, 1, 2).flip(1)
        logits = self.small((pixels - self.mean) / self.std)
        return logits.abs().mean(1), logits.softmax(1)[:, :, None, None]


def test_everything_that_a_graph_can_hold_is_declared(
    *, small: Small, images: Path, labels: Path, expected: Path, settings: Settings, tmp_path: Path
) -> None:
    """The same answers through an input and an output of another form."""
    path = tmp_path / "awkward.onnx"
    example = (torch.zeros((1, CROP, CROP, 3), dtype=torch.uint8),)
    torch.onnx.export(Awkward(small).eval(), example, path, dynamo=True, verbose=False, external_data=False)
    said = SAID | {
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "pixel_range": "0-255",
        "channel_order": "bgr",
    }
    asked = request(path, labels=labels, images=images, expect=expected, flags=said, output=1)
    imported = import_model(settings, asked, tmp_path)
    assert [one["agreement"] for one in imported.certificate["sets"]] == [1.0, 1.0]
    assert imported.certificate["preprocessing"]["layout"] == "nhwc"
    assert imported.certificate["preprocessing"]["outputs"] == "probabilities"
    with pytest.raises(
        ConfigurationError, match=r"2 outputs \(0: \(1,\), 1: \(1, 6, 1, 1\)\): say by --output"
    ):
        import_model(settings, request(path, labels=labels, flags=said), tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        {"fit": "squash", "resize": 36},
        {"fit": "pad", "resize": 32, "padding": "#204060"},
        {"interpolation": "bicubic"},
    ],
)
def test_how_a_picture_becomes_a_square_travels_in_the_archive(
    *, said: dict[str, Any], onnx: Path, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """Proved against torchvision on Pillow, and told by the archive."""
    imported = import_model(
        settings, request(onnx, labels=labels, images=images, flags=SAID | said), tmp_path
    )
    assert imported.certificate["sets"][0]["probability_change"]["largest"] < 0.02
    described = unpacked(imported, tmp_path / "archive").describe()["input"]
    assert {name: described[name] for name in said} == said


def test_drawn_images_prove_it_where_there_are_no_others(
    *, onnx: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """The certificate says so, and so does the command."""
    imported = import_model(settings, request(onnx, labels=labels), tmp_path)
    assert imported.certificate["sets"][0]["name"] == "drawn images"
    assert "note: proved on drawn images" in render(imported)


def test_images_that_are_seen_in_several_ways_are_left_out(
    *, onnx: Path, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """No image at all, or 16 bits, is no reason to refuse a model, and is counted."""
    root = tmp_path / "images"
    root.mkdir()
    for file in sorted(images.iterdir())[:4]:
        (root / file.name).write_bytes(file.read_bytes())
    (root / "text.jpg").write_text("no image")
    from PIL import Image  # noqa: PLC0415 - one test's

    Image.fromarray(np.full((40, 40), 40000, np.uint16)).save(root / "deep.png")
    imported = import_model(settings, request(onnx, labels=labels, images=root), tmp_path)
    assert imported.certificate["left_out"] == 2
    assert imported.certificate["sets"][0]["images"] == 4


def test_an_archive_that_was_proved_stays_where_the_next_is_refused(
    *, onnx: Path, images: Path, labels: Path, expected: Path, settings: Settings, tmp_path: Path
) -> None:
    """Nothing beside it changes either."""
    import_model(settings, request(onnx, labels=labels, images=images), tmp_path)
    before = {file.name: file.read_bytes() for file in Path(settings.paths.model_store).iterdir()}
    wrong = request(
        onnx, labels=labels, images=images, expect=expected, flags=SAID | {"channel_order": "bgr"}
    )
    with pytest.raises(DataError):
        import_model(settings, wrong, tmp_path)
    assert {file.name: file.read_bytes() for file in Path(settings.paths.model_store).iterdir()} == before


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, CROP, CROP), "three channels are served"),
        ((1, 3, CROP, 48), "squares alone are served"),
        ((4, 3, CROP, CROP), "export it with a batch of 1"),
    ],
)
def test_an_input_that_is_not_served_is_refused(
    *, shape: tuple[int, ...], message: str, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """Before anything is computed, with the shape that it has."""

    class Averages(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    path = export_onnx(Averages(), tmp_path / "other.onnx", shape)
    with pytest.raises(DataError, match=message):
        import_model(settings, request(path, labels=labels), tmp_path)


def test_damaged_files_of_every_kind_are_one_line(settings: Settings, tmp_path: Path) -> None:
    """The kind that was tried is named; nothing is written."""
    for name in ("a.onnx", "a.xml", "a.pt2", "a.pth", "a.safetensors", "a.txt"):
        path = tmp_path / name
        path.write_bytes(b"\x00not a model" * 40)
        path.with_suffix(".bin").write_bytes(b"")
        with pytest.raises(DataError) as refused:
            import_model(
                settings, request(path, arch="torchvision:resnet18" if "th" in name else None), tmp_path
            )
        assert name in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"no file .*: give one, or torchvision:NAME"):
        import_model(settings, request(tmp_path / "none.onnx"), tmp_path)
