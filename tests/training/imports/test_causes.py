"""Wrong preprocessing: each kind is refused, and the line names it and the flags that put it right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from imagebatch_training.errors import DataError
from imagebatch_training.imports.run import import_model
from imagebatch_training.settings import Settings

from tests.training.imports.tiny import (
    CROP,
    LABELS,
    MEAN,
    SAID,
    STD,
    Small,
    export_onnx,
    probabilities,
    request,
    save_script,
    write_expected,
)

HALF = (0.5, 0.5, 0.5)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "normalisation": (
        {"mean": HALF, "std": HALF},
        "Cause: wrong normalisation; with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 on 24 of 24",
    ),
    "range": ({"pixel_range": "0-255"}, "Cause: wrong value range; with --pixel-range 0-1 on 24 of 24"),
    "channels": ({"channel_order": "bgr"}, "Cause: swapped channels; with --channel-order rgb on 24 of 24"),
    "squash": (
        {"fit": "squash", "resize": CROP},
        "Cause: wrong resize or crop; with --fit crop on 24 of 24",
    ),
    "range and channels": (
        {"pixel_range": "0-255", "channel_order": "bgr"},
        "Cause: wrong value range and swapped channels; with --pixel-range 0-1 --channel-order rgb",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_wrong_preprocessing_is_named(
    *,
    wrong: str,
    onnx: Path,
    small: Small,
    images: Path,
    labels: Path,
    expected: Path,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """The expected answers are the own code's; one thing is declared otherwise, or two."""
    said, message = WRONG[wrong]
    if wrong == "squash":
        expected = _cropped_plainly(small, images, tmp_path)
    asked = request(onnx, labels=labels, images=images, expect=expected, flags=SAID | said)
    with pytest.raises(DataError) as refused:
        import_model(settings, asked, tmp_path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path(settings.paths.model_store).exists()


def _cropped_plainly(small: Small, images: Path, folder: Path) -> Path:
    """Answers of code that resizes the shorter side to what is cropped."""
    from torchvision.transforms import functional as vision  # noqa: PLC0415 - one test's own code

    def prepare(picture: Any) -> Any:
        square = vision.center_crop(vision.resize(picture.convert("RGB"), CROP), CROP)
        return vision.normalize(vision.to_tensor(square), MEAN, STD)[None].numpy()

    files = sorted(images.iterdir())
    answers = [probabilities(small, file, prepare) for file in files]
    return write_expected(folder / "plain.csv", files, answers)


@pytest.mark.parametrize(
    ("ends", "said", "message"),
    [
        (True, "logits", "softmax twice: the model's outputs are probabilities already"),
        (False, "probabilities", "softmax is missing: the model's outputs lie between"),
    ],
)
def test_a_softmax_too_many_or_too_few_is_named(
    *, ends: bool, said: str, message: str, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """The outputs themselves show it: nobody need expect anything."""
    path = export_onnx(Small(softmax=ends), tmp_path / "small.onnx")
    with pytest.raises(DataError, match=message):
        import_model(
            settings, request(path, labels=labels, images=images, flags=SAID | {"outputs": said}), tmp_path
        )


def test_a_layout_that_the_model_has_not_is_named(
    *, onnx: Path, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """The shape of its input says it."""
    asked = request(onnx, labels=labels, images=images, flags=SAID | {"layout": "nhwc"})
    with pytest.raises(
        DataError, match=r"wrong layout: a flag says layout nhwc, .* \(1, 3, 32, 32\): --layout nchw"
    ):
        import_model(settings, asked, tmp_path)


def test_a_layout_that_no_shape_tells_is_found_by_asking(
    *, small: Small, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """TorchScript has no shapes: what it does not take is tried the other way round."""
    path = tmp_path / "small.pt"
    save_script(small, path)
    network = request(path, labels=labels, images=images, flags=SAID | {"layout": "nhwc"})
    with pytest.raises(DataError, match=r"wrong layout: the model takes \(1, 3, 32, 32\)"):
        import_model(settings, network, tmp_path)


def test_expected_probabilities_after_two_softmaxes_are_named(
    *, onnx: Path, small: Small, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """A usual mistake on the other side."""
    files = sorted(images.iterdir())
    twice = [torch.tensor(probabilities(small, file)).softmax(0).numpy() for file in files]
    asked = request(
        onnx, labels=labels, images=images, expect=write_expected(tmp_path / "twice.csv", files, twice)
    )
    with pytest.raises(DataError, match="Cause: a softmax too many in what is expected"):
        import_model(settings, asked, tmp_path)


def test_labels_in_another_order_are_named(
    *, onnx: Path, images: Path, expected: Path, settings: Settings, tmp_path: Path
) -> None:
    """Classes that are right but for their names are told from wrong pixels."""
    turned = tmp_path / "turned.txt"
    turned.write_text("\n".join((LABELS[1], LABELS[0], *LABELS[2:])))
    with pytest.raises(DataError, match=r"the labels are in another order: what is called '\w+' is '\w+'"):
        import_model(settings, request(onnx, labels=turned, images=images, expect=expected), tmp_path)


def test_what_nothing_explains_is_refused_all_the_same(
    *, onnx: Path, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """Answers of another model: no alternative fits, and the line says so."""
    files = sorted(images.iterdir())
    random = torch.Generator().manual_seed(1)
    other = [torch.rand(len(LABELS), generator=random).softmax(0).numpy() for _ in files]
    asked = request(
        onnx, labels=labels, images=images, expect=write_expected(tmp_path / "other.csv", files, other)
    )
    with pytest.raises(DataError, match="nothing else that was tried explains it"):
        import_model(settings, asked, tmp_path)


def test_labelled_folders_tell_wrong_preprocessing(
    *, onnx: Path, small: Small, images: Path, labels: Path, settings: Settings, tmp_path: Path
) -> None:
    """Where classes alone are known, what is better by more than chance is named."""
    root = tmp_path / "folders"
    for label in LABELS:
        (root / label).mkdir(parents=True)
    for file in images.iterdir():
        best = LABELS[int(probabilities(small, file).argmax())]
        (root / best / file.name).write_bytes(file.read_bytes())
    with pytest.raises(
        DataError, match=r"the images' folders .* Cause: swapped channels; with --channel-order rgb"
    ):
        import_model(
            settings,
            request(onnx, labels=labels, images=root, flags=SAID | {"channel_order": "bgr"}),
            tmp_path,
        )
    imported = import_model(settings, request(onnx, labels=labels, images=root), tmp_path)
    assert imported.certificate["sets"][0]["accuracy"]["archive"] == 1.0
