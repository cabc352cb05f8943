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
from imagebatch_training.folds.run import Lesson, taught
from imagebatch_training.images.data import ensure_data, require_data

from tests.training.shapes import draw_folder, small_settings, write_random_weights

PROBE = ["finetune.first_block=11", "model.layer=14.expansion", "model.pooling=[mean,max,std]"]
TUNE = [*PROBE, "finetune.mean_from_epoch=1", "finetune.head_learning_rate=1e-5"]
LIGHT = [*PROBE, "augment=[blur,gamma]"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Some recipes on drawn images, whose names and places say nothing about their blocks."""
    root = tmp_path_factory.mktemp("folds")
    images = draw_folder(root / "images")
    recipes = [
        Recipe(name=name, text=name, method=method, settings=small_settings(root, images, *words), **more)
        for name, method, words, more in (
            ("last", "probe", [], {}),
            ("middle", "probe", PROBE, {}),
            ("tuned", "fine-tune", TUNE, {}),
            ("light", "probe", LIGHT, {}),
            ("bagged", "probe", PROBE, {"bags": 2}),
            ("pupil", "probe", PROBE, {"teachers": ["last", "tuned"]}),
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
        ensembles={"both": ["middle", "tuned"]},
        costs={"missed": 5, "false_alarm": 1},
        target={"accuracy": 0.9},
    )


def test_recipes_are_compared_and_nothing_is_fitted_twice(plan: Plan) -> None:
    """Each image tested once a deal by each recipe; a second call reads what the first one kept."""
    result = compare(plan, processes=2)
    assert result["data"]["images"] == 36
    for deal in range(2):
        assert sum(result["data"]["test_images"][3 * deal : 3 * deal + 3]) == 36
    assert [row["name"] for row in result["recipes"]] == [recipe.name for recipe in plan.recipes]
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
    assert len(kept) == 36
    assert compare(plan, processes=2) == result
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert [path.name for path in kept[0].parent.parent.iterdir() if path.is_dir()] == ["outcomes"]
    quoted = headline(result)["folds"]
    assert quoted["champion_accuracy"] == result["recipes"][2]["figures"]["accuracy"]
    assert quoted["probe_accuracy"] == result["recipes"][1]["figures"]["accuracy"]
    assert quoted["gain_interval"] == result["fine_tune"]["gain"]["accuracy"]
    assert render(result).count("\n| ") >= 8
    assert [one["members"] for one in result["ensembles"]] == [["middle", "tuned"]]
    assert 0 <= result["champion"]["by_cost"]["recall"] <= 1
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
        ({"ensembles": {"e": ["middle", "nobody"]}}, "an ensemble must have two members or more"),
        ({"costs": {"missed": 5}}, "costs must be missed and false_alarm, above 0, or empty"),
        ({"positive": []}, "costs are of positive classes: positive must name some"),
        ({"costs": {"missed": 5, "false_alarm": 0}}, "costs must be missed and false_alarm, above 0"),
        ({"recipes": {"a": {"text": "t"}}}, "is no plan: KeyError"),
        ({"more": 1}, "must have the keys .*: see more"),
    ],
)
def test_a_plan_that_is_none_is_told(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """In one line, with what is wrong."""
    content = yaml.safe_load((CONFIG_DIR / "folds" / "solar-cells.yaml").read_text("utf-8"))
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content | change, sort_keys=False), "utf-8")
    with pytest.raises(ConfigurationError, match=said):
        read_plan(path, CONFIG_DIR, [])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"teachers": ["a"]}, "teachers must be recipes that stand before"),
        ({"teachers": ["b"]}, "teachers must be recipes that stand before"),
        ({"bags": 0}, "bags must be at least 1"),
    ],
)
def test_a_recipe_learns_from_those_before_it(tmp_path: Path, more: dict[str, object], said: str) -> None:
    """A recipe that teaches itself, or one that comes later, would have to be fitted before it is fitted."""
    one = {"text": "t", "method": "probe", "words": []}
    names = dict.fromkeys(("original", "frozen", "tuned", "champion"), "a")
    content = yaml.safe_load((CONFIG_DIR / "folds" / "solar-cells.yaml").read_text("utf-8"))
    path = tmp_path / "plan.yaml"
    plan = content | names | {"ensembles": {}, "recipes": {"a": one | more, "b": one}}
    path.write_text(yaml.safe_dump(plan, sort_keys=False), "utf-8")
    with pytest.raises(ConfigurationError, match=said):
        read_plan(path, CONFIG_DIR, [])


def test_what_a_pupil_is_taught(plan: Plan, tmp_path: Path) -> None:
    """Of training images half the label and half what the teachers say on average; of others the label."""
    data = require_data(plan.recipes[0].settings)
    known = data.labels.targets()
    images = np.arange(0, len(known), 2)
    even = np.zeros((len(known), 3), np.float32)
    sure = even.copy()
    sure[:, 0] = 50
    paths = [tmp_path / "even.npz", tmp_path / "sure.npz"]
    for path, logits in zip(paths, (even, sure), strict=True):
        np.savez(path, first=logits, final=-logits)
    assert taught([], "first") is None
    by = taught(paths, "first")
    assert by is not None
    np.testing.assert_allclose(by, [[2 / 3, 1 / 6, 1 / 6]] * len(known), atol=1e-6)
    targets, chosen = Lesson(images, images[:1], by).targets(data, "leave-out")
    assert chosen.tolist() == images.tolist()
    labels = np.eye(3)[known]
    np.testing.assert_allclose(targets[images], (labels + by)[images] / 2, atol=1e-6)
    np.testing.assert_allclose(np.delete(targets, images, 0), np.delete(labels, images, 0))
    assert (Lesson(images, images[:1]).targets(data, "leave-out")[0] == known).all()


def test_a_lesson_leaves_whole_blocks_out() -> None:
    """Every block is left out of one bag, and of one alone."""
    blocks = np.repeat(np.arange(7), 3)
    lesson = Lesson(np.arange(3, 21), np.arange(3))
    left_out = [np.setdiff1d(lesson.images, lesson.without(blocks, bag, 3).images) for bag in range(3)]
    assert sorted(np.concatenate(left_out).tolist()) == list(range(3, 21))
    for images in left_out:
        assert len(images) == 3 * len(set(blocks[images].tolist())) == 6


def test_a_missing_plan_is_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And the exit code of a configuration that cannot be used."""
    assert main(["folds", "--plan", str(tmp_path / "none.yaml")]) == 78
    assert capfd.readouterr().err.startswith(f"imagebatch-train: {tmp_path}/none.yaml cannot be read")
