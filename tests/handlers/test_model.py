"""Settings, labels and probabilities of a loaded archive."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from imagebatch_archive import content_digest
from imagebatch_model import ImageModel, Settings
from imagebatch_pixels import FIRST_PIXELS, PIXELS_VERSION, ImageError, decode
from PIL import Image


@pytest.fixture(scope="module")
def model(archive_folder: Path) -> ImageModel:
    return ImageModel(archive_folder, Settings())


def test_the_shipped_configuration_states_the_defaults(archive_folder: Path) -> None:
    """model-config.yaml is valid, complete, and says what the code does without it."""
    config = yaml.safe_load((archive_folder / "model-config.yaml").read_text())
    section = config["imagebatch"]
    assert Settings.from_config(config) == Settings(pixels=section["pixels"])
    assert Settings.from_config({}) == Settings()
    # Archives that say nothing were made when there was one version; new ones are made of the newest.
    assert (section["pixels"], Settings().pixels) == (PIXELS_VERSION, FIRST_PIXELS)
    assert config["imagebatch"].keys() == vars(Settings()).keys()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"engin": "torch"}, "unknown key imagebatch.engin"),
        ({"crop": "224"}, "imagebatch.crop must be"),
        ({"top_k": True}, "imagebatch.top_k must be"),
        ({"max_images": 0}, "imagebatch.max_images must be at least 1"),
        ({"resize": 200}, "imagebatch.crop must not be larger than imagebatch.resize"),
        ({"pixels": "0"}, "trained on pixels 0, this code makes"),
        ({"fit": "stretch"}, "imagebatch.fit must be crop, squash or pad: got 'stretch'"),
        ({"interpolation": "lanczos"}, "imagebatch.interpolation must be bilinear or bicubic"),
        ({"review": 1.5}, "imagebatch.review must be from 0 to 1: got 1.5"),
        ({"head": "regression", "review": 0.5}, "imagebatch.review says nothing about head regression"),
        ({"padding": "pink"}, "imagebatch.padding must be white, black, grey or #rrggbb: got 'pink'"),
    ],
)
def test_a_wrong_setting_is_refused(section: dict[str, Any], message: str) -> None:
    """Unknown keys, wrong types and impossible values stop the worker with the key's name."""
    with pytest.raises(ValueError, match=message):
        Settings.from_config({"imagebatch": section})


def test_a_model_describes_itself(model: ImageModel, archive_folder: Path) -> None:
    """Labels in the order of the classes, the input that training used, and the digest of the very files."""
    assert model.describe() == {
        "labels": ["mono-sound", "mono-defective", "poly-sound", "poly-defective", "other"],
        "input": {"resize": 256, "crop": 224, "channels": 3, "pixels": FIRST_PIXELS},
        "engine": "openvino",
        "precision": "f32",
        "embedding": 16,
        "pages": True,
    }
    assert model.digest == content_digest(archive_folder)


def test_a_model_tells_how_a_picture_becomes_its_square(archive_folder: Path) -> None:
    """What is not the default stands in the description."""
    section = {"fit": "pad", "interpolation": "bicubic", "padding": "grey"}
    settings = Settings.from_config({"imagebatch": section})
    described = ImageModel(archive_folder, settings).describe()["input"]
    assert described == {"resize": 256, "crop": 224, "channels": 3, "pixels": FIRST_PIXELS} | section


def test_a_model_tells_how_sure_it_must_be(archive_folder: Path) -> None:
    """The threshold below which a person should look stands in the description, where there is one."""
    settings = Settings.from_config({"imagebatch": {"review": 0.83}})
    assert ImageModel(archive_folder, settings).describe()["review"] == 0.83


def test_a_model_without_features_says_nothing_of_embeddings(plain_folder: Path) -> None:
    """A client asks only where the description names the length of an embedding."""
    model = ImageModel(plain_folder, Settings())
    assert model.embedding == 0
    assert "embedding" not in model.describe()


def test_a_model_names_its_parity_certificate(archive_folder: Path, tmp_path: Path) -> None:
    """The description carries the digest of the certificate's bytes, and so does the model's own digest."""
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    before = content_digest(folder)
    (folder / "parity.json").write_text("{}")
    model = ImageModel(folder, Settings())
    assert model.describe()["parity"] == "sha256:" + hashlib.sha256(b"{}").hexdigest()
    assert model.digest != before


def test_probabilities_are_a_softmax_in_falling_order(model: ImageModel) -> None:
    """Ties go by class index, values are the shortest form of float32, and they sum to one."""
    logits = np.array([1, 3, 2, 3, -90], dtype=np.float32)
    labels, probabilities, _ = model.predict(logits, 5)
    assert labels == ["mono-defective", "poly-defective", "poly-sound", "mono-sound", "other"]
    exact = np.exp(np.float64([3, 3, 2, 1, -90]))
    np.testing.assert_array_equal(np.float32(probabilities), (exact / exact.sum()).astype(np.float32))
    assert probabilities[0] == probabilities[1]
    assert all(len(json.dumps(value)) <= 14 for value in probabilities)


def test_top_k_cuts_and_never_invents(model: ImageModel) -> None:
    """Fewer labels on request; not more than there are."""
    logits = np.arange(5, dtype=np.float32)
    assert model.predict(logits, 1).labels == ["other"]
    assert len(model.predict(logits, 100).labels) == 5


def test_huge_logits_do_not_overflow(model: ImageModel) -> None:
    """Logits of 10,000 still give probabilities."""
    probabilities = model.predict(np.array([1e4, 0, 0, 0, -1e4], dtype=np.float32), 5).probabilities
    assert probabilities == [1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("logits", [[np.nan, 0, 0, 0, 0], [np.inf, 0, 0, 0, 0], [0, 0, 0, 0]])
def test_a_broken_model_is_not_believed(model: ImageModel, logits: list[float]) -> None:
    """Logits that are not finite or do not fit the labels are an error and never a prediction."""
    with pytest.raises(ValueError, match="the model answers"):
        model.predict(np.array(logits, dtype=np.float32), 1)


@pytest.mark.parametrize("names", [{"0": "a", "1": "b"}, {str(i): "x" for i in range(1, 6)}])
def test_labels_that_do_not_fit_stop_the_load(
    names: dict[str, str], archive_folder: Path, tmp_path: Path
) -> None:
    """A label list of another length, or not numbered from 0, is found when loading."""
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    (folder / "index_to_name.json").write_text(json.dumps(names))
    with pytest.raises(ValueError, match=r"labels"):
        ImageModel(folder, Settings())


@pytest.fixture
def labelled(archive_folder: Path, tmp_path: Path) -> Callable[[Any], ImageModel]:
    """Loads the archive with other labels."""

    def load(labels: Any) -> ImageModel:
        folder = shutil.copytree(archive_folder, tmp_path / "archive", dirs_exist_ok=True)
        (folder / "index_to_name.json").write_text(json.dumps(labels))
        return ImageModel(folder, Settings())

    return load


def test_labels_are_text_as_it_stands(labelled: Callable[[Any], ImageModel]) -> None:
    """Names that other readers take for nothing, a number or a truth stay; of a pair the name is taken."""
    names = ["None", "NA", "1e5", "true", " null"]
    assert labelled(dict(enumerate(names))).labels == names
    pairs = {str(index): [f"n{index:08}", name] for index, name in enumerate(names)}
    assert labelled(pairs).describe()["labels"] == names


@pytest.mark.parametrize(
    "label", [None, 7, 1e5, True, "", " ", [], ["n1"], ["n1", 7], ["n1", "a", "b"], {"name": "a"}]
)
def test_labels_that_are_no_text_stop_the_load(labelled: Callable[[Any], ImageModel], label: Any) -> None:
    """No text is made of what is none."""
    with pytest.raises(ValueError, match=r"index_to_name.json: .* is no label: text is"):
        labelled(dict(enumerate(["a", "b", "c", label, "d"])))


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"{", b"7", b'["a", "b", "c", "d", "e"]'])
def test_a_label_file_of_another_form_stops_the_load(
    archive_folder: Path, tmp_path: Path, content: bytes
) -> None:
    """It is named, and what it must hold."""
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    (folder / "index_to_name.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index_to_name.json must hold"):
        ImageModel(folder, Settings())


def test_classes_are_told_where_names_do_not_tell_them(
    model: ImageModel, labelled: Callable[[Any], ImageModel]
) -> None:
    """Two classes of one name differ in their indices; a model whose names differ answers as ever."""
    logits = np.array([1, 3, 2, 3, -90], dtype=np.float32)
    assert model.entry(model.predict(logits, 2)).keys() == {"labels", "probabilities"}
    twins = labelled(dict(enumerate(["crane", "crane", "maillot", "maillot", "hen"])))
    entry = twins.entry(twins.predict(logits, 4))
    assert (entry["labels"], entry["classes"]) == (["crane", "maillot", "maillot", "crane"], [1, 3, 2, 0])
    assert json.loads(json.dumps(entry)) == entry


@pytest.mark.parametrize("section", [{}, {"pixels": "1"}, {"pixels": "2"}])
def test_a_model_is_given_the_pixels_that_it_was_trained_on(
    section: dict[str, Any], archive_folder: Path, photograph: Image.Image, encode: Callable[..., bytes]
) -> None:
    """The declared version decides how a large JPEG is decoded; an archive without one has the first."""
    settings = Settings.from_config({"imagebatch": {"resize": 70, "crop": 64} | section})
    model, version = ImageModel(archive_folder, settings), section.get("pixels", "1")
    data = encode(photograph, "JPEG")
    found = {
        each: torch.equal(model.decode(data), decode(data, resize=70, crop=64, version=each)) for each in "12"
    }
    assert found == {each: each == version for each in "12"}
    assert model.describe()["input"]["pixels"] == version


def test_settings_reach_the_decoder(
    archive_folder: Path, photograph: Image.Image, encode: Callable[..., bytes]
) -> None:
    """The limit on pixels and the sizes are those of model-config.yaml."""
    small = ImageModel(archive_folder, Settings(max_pixels=70_000, resize=240))
    with pytest.raises(ImageError, match=r"too_many_pixels: .* see max_pixels in the archive's model-config"):
        small.decode(encode(photograph, "PNG"))
    assert small.decode(encode(photograph.resize((240, 240)), "PNG")).shape == (3, 224, 224)
