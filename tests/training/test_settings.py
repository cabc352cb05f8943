"""What a configuration may say: each rule is refused in one line that names the setting."""

from pathlib import Path

import pytest
from imagebatch_training.configuration import CONFIG_DIR, ENGINES, load_settings
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.settings import Tracking, model_path, tracking_uri

from benchmarks.lib.model import MODEL, QUICK_MODEL, BenchmarkModel
from tools.local.services import training_folders
from tools.paths import VAR


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("data.blok_size=3", "blok_size"),
        ("data.test=0.9", "together below 1"),
        ("finetune.epochs=few", "few"),
        ("model.crop=100", "multiple of 32"),
        ("data=none", "none"),
        ("weights.source=elsewhere", r"weights\.source must be one of auto, torchvision"),
        ("data.kind=zip", r"data\.kind must be one of elpv, image_folder, csv"),
        ("data.kind=csv", r"data\.csv must name a file"),
        ("data.classes=[a,a]", r"data\.classes must not repeat a name"),
        ("data.block_size=0", r"data\.block_size must be at least 1"),
        ("data.validation=0", r"data\.test and data\.validation must be above 0"),
        ("model.name=a/b", r"model\.name and model\.version must be letters"),
        ("model.version=''", r"model\.name and model\.version must be letters"),
        ("model.crop=320", r"at most model\.resize"),
        ("probe.penalties=[]", r"probe\.penalties and finetune\.learning_rates must not be empty"),
        ("finetune.first_block=15", r"finetune\.first_block must be between 1 and 14"),
        ("finetune.batch_size=0", r"finetune\.batch_size must be at least 1"),
        ("finetune.averaging=1", r"finetune\.averaging must be at least 0 and below 1"),
        ("finetune.head_learning_rate=0", r"finetune\.head_learning_rate must be above 0, or null"),
        ("finetune.mean_from_epoch=4", r"finetune\.mean_from_epoch must be between 1 and finetune\.epochs"),
        ("finetune.class_weights=equal", r"finetune\.class_weights must be none or balanced"),
        ("probe.uncertain=hard", r"probe\.uncertain and finetune\.uncertain must be leave-out or soft"),
        ("finetune.precision=float16", r"finetune\.precision must be float32 or bfloat16"),
        ("finetune.patience=0", r"finetune\.patience must be at least 1, or null"),
        ("finetune.device=tpu", r"finetune\.device must be one of auto, cpu, cuda"),
        ("preset=none", "none"),
        ("model.engine=tensorrt", r"model\.engine must be one of openvino"),
        (
            "release.agreement=1.1",
            r"release\.agreement and release\.margin_agreement must be between 0 and 1",
        ),
        ("release.images=0", r"release\.images must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named(override: str, text: str) -> None:
    """Unknown keys, wrong types and values out of range never reach the work."""
    with pytest.raises(ConfigurationError, match=text):
        load_settings(CONFIG_DIR, [override])


def test_soft_targets_need_a_source_with_probabilities() -> None:
    """Before anything is read: the shipped cells have them, a folder per class has none."""
    assert load_settings(CONFIG_DIR, ["probe.uncertain=soft"]).probe.uncertain == "soft"
    folder = ["data=image-folder", "data.images=there", "finetune.uncertain=soft"]
    with pytest.raises(ConfigurationError, match=r"need labels with a probability, .*: say leave-out"):
        load_settings(CONFIG_DIR, folder)


def test_what_is_shipped_is_complete() -> None:
    """Every setting has a value, the defaults are the demo's, and what refers to another is resolved."""
    settings = load_settings(CONFIG_DIR, [])
    assert settings.model.name == settings.tracking.experiment == settings.data.name == "solar-cells"
    assert settings.data.images == "var/data/solar-cells/images"
    assert settings.data.classes == ["mono-sound", "mono-defective", "poly-sound", "poly-defective"]
    assert settings.model.engine == ENGINES[0]


def test_a_preset_is_words_typed_once() -> None:
    """It changes what it names; what is said beside it wins."""
    folder = ["data=image-folder", "data.images=there"]
    settings = load_settings(CONFIG_DIR, [*folder, "preset=surfaces", "probe.floor=0.1"])
    assert (settings.model.layer, settings.model.pooling) == ("14.expansion", ["mean", "max", "std"])
    assert (settings.model.contrast, settings.finetune.first_block) == ("percentiles-1-99", 11)
    assert settings.probe.floor == 0.1
    assert settings.finetune.epochs == load_settings(CONFIG_DIR, folder).finetune.epochs


def test_the_demos_cells_bring_their_recipe_and_no_other_data_does() -> None:
    """The middle of the network, the whole cell, the labellers' doubts; folders start from the last layer."""
    cells = load_settings(CONFIG_DIR, [])
    assert (cells.model.layer, cells.model.resize, cells.model.crop) == ("14.expansion", 288, 288)
    assert (cells.model.contrast, cells.probe.uncertain) == ("percentiles-1-99", "soft")
    assert cells == load_settings(CONFIG_DIR, ["preset=solar-cells"])
    folder = load_settings(CONFIG_DIR, ["data=image-folder", "data.images=there"])
    assert (folder.model.layer, folder.model.resize, folder.model.crop) == ("18", 256, 224)


def test_the_general_recipe_is_that_of_data_without_one() -> None:
    """`preset=general` says over the cells' recipe what config.yaml says, to the last value."""
    words = ["model.name=same"]
    folder = load_settings(CONFIG_DIR, ["data=image-folder", "data.images=there", *words])
    cells = load_settings(CONFIG_DIR, ["preset=general", *words])
    assert (cells.model, cells.probe, cells.finetune) == (folder.model, folder.probe, folder.finetune)


@pytest.mark.parametrize("model", [MODEL, QUICK_MODEL])
def test_the_benchmarks_model_is_one_that_other_servers_know(model: BenchmarkModel) -> None:
    """The whole network at 224 pixels, in a folder that the demo's training does not write to."""
    settings = load_settings(CONFIG_DIR, model.words())
    assert (settings.model.layer, settings.model.pooling, settings.model.crop) == ("18", ["mean"], 224)
    assert model_path(settings) == model.weights
    assert Path(settings.paths.model_store) / f"{settings.model.name}.mar" == model.archive
    assert model.folder.is_relative_to(VAR / "benchmarks")


def test_the_demo_trains_where_the_command_by_itself_does() -> None:
    """So that `imagebatch-train report` after `make demo` speaks of the demo's training."""
    settings = load_settings(CONFIG_DIR, training_folders())
    assert settings.paths.training == str(VAR / "training" / "solar-cells")
    other = load_settings(CONFIG_DIR, [*training_folders(), "model.name=other"])
    assert other.paths.training == str(VAR / "training" / "other")


def test_presets_and_data_of_ones_own_lie_beside_the_shipped_ones(tmp_path: Path) -> None:
    """A folder without a config.yaml, whatever it is called, adds its files; the shipped ones stay."""
    own = tmp_path / "it's mine, $x"
    (own / "preset").mkdir(parents=True)
    (own / "preset" / "parts.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: image-folder\ndata:\n  images: /parts\nseed: 7\n"
    )
    settings = load_settings(own, ["preset=parts"])
    assert (settings.seed, settings.data.images, settings.data.kind) == (7, "/parts", "image_folder")
    assert load_settings(own, ["preset=surfaces"]).model.layer == "14.expansion"


def test_a_setting_that_has_to_be_given_is_named() -> None:
    """A folder of one's own images has no default."""
    with pytest.raises(ConfigurationError, match=r"configuration: .*images"):
        load_settings(CONFIG_DIR, ["data=image-folder"])


def test_an_error_stays_one_bounded_line() -> None:
    """However long what was typed is."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(CONFIG_DIR, [f"data.block_size={'many' * 500}"])
    assert len(str(caught.value)) < 350
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_configuration_says_where_to_start(tmp_path: Path) -> None:
    """Started from elsewhere, the command names the folder that it looked into, and the flag."""
    with pytest.raises(ConfigurationError, match=rf"no config\.yaml in {tmp_path}: .* give --config-dir"):
        load_settings(tmp_path, [])


def test_the_environments_tracking_server_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_TRACKING_URI, unless it is set to nothing."""
    tracking = Tracking(uri="sqlite:///own.db")
    assert tracking_uri(tracking) == "sqlite:///own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri(tracking) == "sqlite:///own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(tracking) == "http://mlflow:5000"
