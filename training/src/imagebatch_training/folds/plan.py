"""What is compared: recipes, each a list of overrides of the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from imagebatch_training.configuration import load_settings
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.settings import Settings

_KEYS = {
    "folds",
    "deals",
    "seed",
    "positive",
    "common",
    "recipes",
    "original",
    "frozen",
    "tuned",
    "champion",
    "ensembles",
    "costs",
    "target",
}
_LEAST_FOLDS = 3
METHODS = ("probe", "fine-tune")
COSTS = ("missed", "false_alarm")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to make a model.

    Attributes:
        name: Short.
        text: One line for people.
        method: `probe` alone, or `fine-tune` from it.
        settings: The configuration.
        teachers: Names of recipes that stand before it: the targets of its training images are half the
            labels and half the teachers' mean probabilities.
        bags: How many models are fitted, each without another share of the training blocks, and their logits
            averaged; 1: one model on all.
    """

    name: str
    text: str
    method: str
    settings: Settings
    teachers: Sequence[str] = ()
    bags: int = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison.

    Attributes:
        folds: Folds of a deal.
        deals: How often the blocks are dealt.
        seed: Of the deals and of every training.
        positive: Classes that together are what is looked for (a defect); may be empty.
        recipes: In the order of the table.
        original: Name of the recipe that all others are compared with.
        frozen: Name of the probe that the fine-tune starts from.
        tuned: Name of the fine-tune, which is compared with it.
        champion: Name of the recipe that is looked at in detail.
        ensembles: Recipes whose probabilities are averaged, by the ensemble's name.
        costs: What a positive image that is not called so costs (`missed`), and one that is called so and is
            not (`false_alarm`), in one unit; empty: no threshold is set by cost.
        target: Figures that were aimed at, by the names of `Figures`.
    """

    folds: int
    deals: int
    seed: int
    positive: Sequence[str]
    recipes: Sequence[Recipe]
    original: str
    frozen: str
    tuned: str
    champion: str
    ensembles: Mapping[str, Sequence[str]]
    costs: Mapping[str, float]
    target: Mapping[str, float]


def read_plan(path: Path, config_dir: Path, overrides: Sequence[str]) -> Plan:
    """Read a plan.

    Args:
        path: YAML with `folds`, `deals`, `seed`, `positive`, `common` (overrides of all), `recipes` (name:
            `text`, `method`, `words`, and where it has them `teachers`, `bags`), `original`, `frozen`,
            `tuned`, `champion`, `ensembles`, `costs`, `target`.
        config_dir: Folder with `config.yaml`.
        overrides: Of all recipes, behind their own.

    Raises:
        ConfigurationError: It cannot be read, or a value is missing or unknown.
    """
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict) or set(found) != _KEYS:
        odd = sorted(_KEYS ^ set(found if isinstance(found, dict) else ()))
        raise ConfigurationError(
            f"{path} must have the keys {', '.join(sorted(_KEYS))}: see {', '.join(odd)}"
        )
    try:
        recipes = [
            _recipe(str(name), said, [*found["common"], *said["words"], *overrides], config_dir)
            for name, said in found["recipes"].items()
        ]
        plan = Plan(
            folds=int(found["folds"]),
            deals=int(found["deals"]),
            seed=int(found["seed"]),
            positive=[str(name) for name in found["positive"]],
            recipes=recipes,
            original=str(found["original"]),
            frozen=str(found["frozen"]),
            tuned=str(found["tuned"]),
            champion=str(found["champion"]),
            ensembles={str(name): [*map(str, members)] for name, members in found["ensembles"].items()},
            costs={str(name): float(value) for name, value in found["costs"].items()},
            target={str(name): float(value) for name, value in found["target"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"{path} is no plan: {type(error).__name__} {error}") from error
    _check(path, plan)
    return plan


def _recipe(name: str, said: Mapping[str, Any], words: list[str], config_dir: Path) -> Recipe:
    return Recipe(
        name=name,
        text=str(said["text"]),
        method=str(said["method"]),
        settings=load_settings(config_dir, words),
        teachers=[*map(str, said.get("teachers", ()))],
        bags=int(said.get("bags", 1)),
    )


def _check(path: Path, plan: Plan) -> None:
    names = [recipe.name for recipe in plan.recipes]
    data = {repr(recipe.settings.data) for recipe in plan.recipes}
    before = {name: {*names[:place]} for place, name in enumerate(names)}
    rules = {
        f"folds must be at least {_LEAST_FOLDS}, deals at least 1": plan.folds >= _LEAST_FOLDS
        and plan.deals >= 1,
        f"method must be {' or '.join(METHODS)}": all(recipe.method in METHODS for recipe in plan.recipes),
        f"original, frozen, tuned and champion must be among {', '.join(names)}": {
            plan.original,
            plan.frozen,
            plan.tuned,
            plan.champion,
        }
        <= {*names},
        "all recipes must be on the same data": len(data) == 1,
        "teachers must be recipes that stand before the one that they teach": all(
            {*recipe.teachers} <= before[recipe.name] for recipe in plan.recipes
        ),
        "bags must be at least 1": all(recipe.bags >= 1 for recipe in plan.recipes),
        "an ensemble must have two members or more, all of them recipes": all(
            len(members) > 1 and {*members} <= {*names} for members in plan.ensembles.values()
        ),
        f"costs must be {' and '.join(COSTS)}, above 0, or empty": not plan.costs
        or ({*plan.costs} == {*COSTS} and min(plan.costs.values()) > 0),
        "costs are of positive classes: positive must name some": not plan.costs or bool(plan.positive),
    }
    for rule, kept in rules.items():
        if not kept:
            raise ConfigurationError(f"{path}: {rule}")
