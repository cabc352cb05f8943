import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from imagebatch_training.cli import main
from imagebatch_training.configuration import CONFIG_DIR
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import exclusive
from imagebatch_training.folds.compare import compare, headline, render
from imagebatch_training.folds.plan import Plan, Recipe, read_plan
from imagebatch_training.images.data import ensure_data

from tests.training.shapes import draw_folder, small_settings, write_random_weights

PROBE = ["finetune.first_block=11", "model.layer=14.expansion", "model.pooling=[mean,max,std]"]
TUNE = [*PROBE, "finetune.mean_from_epoch=1", "finetune.head_learning_rate=1e-5"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Three recipes on drawn images, whose names and places say nothing about their blocks."""
    root = tmp_path_factory.mktemp("folds")
    images = draw_folder(root / "images")
    recipes = [
        Recipe(name=name, text=name, method=method, settings=small_settings(root, images, *words))
        for name, method, words in (
            ("last", "probe", []),
            ("middle", "probe", PROBE),
            ("tuned", "fine-tune", TUNE),
        )
    ]
    write_random_weights(recipes[0].settings)
    ensure_data(recipes[0].settings)
    return Plan(
        folds=3,
        deals=2,
        seed=0,
        positive=["striped"],
        recipes=recipes,
        original="last",
        frozen="middle",
        tuned="tuned",
        champion="tuned",
        target={"accuracy": 0.9},
    )


def test_recipes_are_compared_and_nothing_is_fitted_twice(plan: Plan) -> None:
    """Each image tested once a deal by each recipe; a second call reads what the first one kept."""
    result = compare(plan, processes=2)
    assert result["data"]["images"] == 36
    for deal in range(2):
        assert sum(result["data"]["test_images"][3 * deal : 3 * deal + 3]) == 36
    assert [row["name"] for row in result["recipes"]] == ["last", "middle", "tuned"]
    for row in result["recipes"]:
        low, high = row["intervals"]["accuracy"]
        assert low <= row["figures"]["accuracy"] <= high
        folds = np.mean(
            [
                fold["accuracy"] * n
                for fold, n in zip(row["folds"], result["data"]["test_images"], strict=True)
            ]
        )
        assert row["figures"]["accuracy"] == pytest.approx(folds / 12)
        assert row["cpu_minutes"] > 0
    assert (
        result["recipes"][1]["figures"]["accuracy"] > 0.6
    )  # three classes that a picture's brightness tells apart
    kept = sorted((Path(plan.recipes[0].settings.paths.training) / "folds" / "outcomes").iterdir())
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 18
    assert compare(plan, processes=2) == result
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert [path.name for path in kept[0].parent.parent.iterdir() if path.is_dir()] == ["outcomes"]
    quoted = headline(result)["folds"]
    assert quoted["champion_accuracy"] == result["recipes"][2]["figures"]["accuracy"]
    assert quoted["probe_accuracy"] == result["recipes"][1]["figures"]["accuracy"]
    assert quoted["gain_interval"] == result["fine_tune"]["gain"]["accuracy"]
    assert render(result).count("\n| ") >= 5
    json.dumps(result, allow_nan=False)


def test_one_comparison_at_a_time(plan: Plan) -> None:
    """A second one would take away the activations that the first one reads."""
    folder = Path(plan.recipes[0].settings.paths.training) / "folds"
    with exclusive(folder / ".lock") as alone:
        assert alone
        with pytest.raises(ConfigurationError, match=f"another comparison writes to {folder}"):
            compare(plan, processes=1)


def test_the_shipped_plan_can_be_read() -> None:
    """Each of its recipes is a whole configuration."""
    path = CONFIG_DIR / "folds" / "solar-cells.yaml"
    found = read_plan(path, CONFIG_DIR, ["seed=7"])
    assert {found.original, found.frozen, found.tuned, found.champion} <= {
        recipe.name for recipe in found.recipes
    }
    assert all(recipe.settings.seed == 7 for recipe in found.recipes)
    assert found.folds * found.deals >= 15


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"folds": 2}, "folds must be at least 3"),
        ({"champion": "nobody"}, "original, frozen, tuned and champion must be among"),
        (
            {"recipes": {"a": {"text": "t", "method": "guess", "words": []}}},
            "method must be probe or fine-tune",
        ),
        ({"recipes": {"a": {"text": "t"}}}, "is no plan: KeyError"),
        ({"more": 1}, "must have the keys .*: see more"),
    ],
)
def test_a_plan_that_is_none_is_told(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """In one line, with what is wrong."""
    content = yaml.safe_load((CONFIG_DIR / "folds" / "solar-cells.yaml").read_text("utf-8"))
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content | change), "utf-8")
    with pytest.raises(ConfigurationError, match=said):
        read_plan(path, CONFIG_DIR, [])


def test_a_missing_plan_is_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And the exit code of a configuration that cannot be used."""
    assert main(["folds", "--plan", str(tmp_path / "none.yaml")]) == 78
    assert capfd.readouterr().err.startswith(f"imagebatch-train: {tmp_path}/none.yaml cannot be read")
