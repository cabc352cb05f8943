"""The verb `folds`: recipes compared on folds of whole blocks."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from imagebatch_training import metrics
from imagebatch_training.backbone.weights import WeightsFile, require_weights
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import exclusive
from imagebatch_training.folds.deal import Fold, deal_folds
from imagebatch_training.folds.figures import (
    Answers,
    best_threshold,
    by_cost,
    by_validation,
    certainty,
    gather,
    intervals,
    measure,
    mix,
    uncertain_gap,
)
from imagebatch_training.folds.plan import Plan, Recipe
from imagebatch_training.folds.run import Outcome, forget, run_recipe
from imagebatch_training.images.data import DataSet, require_data

log = logging.getLogger(__name__)

_PRECISION = 0.75
"""Of the operating point whose recall is told."""


def compare(plan: Plan, *, processes: int) -> dict[str, Any]:
    """Run every recipe on every fold and compare.

    Args:
        plan: What is compared.
        processes: Trainings side by side, of one thread each.

    Returns:
        JSON: `data`, `recipes` (figures, intervals, gain over the original, CPU-minutes), `chosen` (the
        recipe chosen on the validation images of every fold), `ensembles`, `fine_tune` (gain over its frozen
        head), `champion` (coverage, reliability, uncertain images, a threshold by cost), `target`.

    Raises:
        ConfigurationError: Weights or data are missing, or another comparison is under way.
        DataError: The blocks cannot be dealt, or an image cannot be decoded.
    """
    first = plan.recipes[0].settings
    weights, data = require_weights(first), require_data(first)
    folds = deal_folds(data.labels, folds=plan.folds, deals=plan.deals, seed=plan.seed)
    outcomes = _outcomes(plan, folds, data, weights, processes)
    answers = {name: gather(found, data.labels, plan.positive) for name, found in outcomes.items()}
    chosen, counts = by_validation(outcomes)
    return {
        "data": _described(data, plan, folds),
        "recipes": [_row(recipe, outcomes[recipe.name], answers, plan) for recipe in plan.recipes],
        "chosen": {"times": counts, **_figures(gather(chosen, data.labels, plan.positive))},
        "ensembles": [_ensemble(name, answers, plan) for name in plan.ensembles],
        "fine_tune": {"gain": intervals(answers[plan.tuned], answers[plan.frozen])},
        "champion": _champion(answers[plan.champion], plan.costs),
        "target": dict(plan.target),
    }


def _outcomes(
    plan: Plan, folds: list[Fold], data: DataSet, weights: WeightsFile, processes: int
) -> dict[str, list[Outcome]]:
    """Run all recipes; what they share on disk is one comparison's at a time."""
    cache = Path(plan.recipes[0].settings.paths.training) / "folds"
    outcomes: dict[str, list[Outcome]] = {}
    with exclusive(cache / ".lock") as alone:
        if not alone:
            raise ConfigurationError(
                f"another comparison writes to {cache}: wait for it, or give this one a model.name of its own"
            )
        for recipe in plan.recipes:
            log.info("%s: %s", recipe.name, recipe.text)
            outcomes[recipe.name] = run_recipe(
                recipe,
                folds,
                data,
                weights,
                cache=cache,
                processes=processes,
                teachers=[outcomes[name] for name in recipe.teachers],
            )
        forget(cache)
    return outcomes


def headline(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few figures that others quote, under the names that they know."""
    rows = {row["name"]: row for row in result["recipes"]}
    champion, frozen = rows[result["data"]["champion"]], rows[result["data"]["frozen"]]
    figures = champion["figures"]
    return {
        "folds": {
            "champion_accuracy": figures["accuracy"],
            "champion_accuracy_interval": champion["intervals"]["accuracy"],
            "probe_accuracy": frozen["figures"]["accuracy"],
            "original_accuracy": rows[result["data"]["original"]]["figures"]["accuracy"],
            "gain_interval": result["fine_tune"]["gain"]["accuracy"],
            "defective_recall": figures["recall"],
            "defective_precision": figures["precision"],
            "macro_f1": figures["macro_f1"],
            "chosen_per_fold_accuracy": result["chosen"]["figures"]["accuracy"],
            "calibration_error": figures["calibration_error"],
        }
    }


def render(result: Mapping[str, Any]) -> str:
    """Render the comparison as a Markdown table: a row per recipe, then what was chosen and the ensembles."""
    head = (
        "recipe | accuracy | 95 % interval | against the original | macro-F1 | recall | precision | AUROC"
        " | AP | calibration error | CPU-minutes"
    )
    lines = [f"| {head} |", "|" + "---|" * 11]
    for row in result["recipes"]:
        bold = "**" if row["name"] == result["data"]["champion"] else ""
        lines.append(
            _line(f"{bold}{row['name']}{bold}: {row['text']}", row, row["gain"], f"{row['cpu_minutes']:.1f}")
        )
    lines.append(_line("whichever has the smallest loss on the fold's validation images", result["chosen"]))
    lines += [
        _line(f"{one['name']}: mean of {' and '.join(one['members'])}", one, one["gain"])
        for one in result["ensembles"]
    ]
    return "\n".join(lines) + "\n"


def _line(
    name: str, row: Mapping[str, Any], gain: Mapping[str, Sequence[float]] | None = None, minutes: str = "-"
) -> str:
    figures, found = row["figures"], row["intervals"]["accuracy"]
    cells = [
        name,
        f"{figures['accuracy']:.3f}",
        f"{found[0]:.3f} to {found[1]:.3f}",
        f"{gain['accuracy'][0]:+.3f} to {gain['accuracy'][1]:+.3f}" if gain else "-",
        *(f"{figures[key]:.3f}" for key in ("macro_f1", "recall", "precision", "auroc", "average_precision")),
        f"{figures['calibration_error']:.3f}",
        minutes,
    ]
    return f"| {' | '.join(cells)} |"


def _described(data: DataSet, plan: Plan, folds: Sequence[Fold]) -> dict[str, Any]:
    known = data.labels.targets() >= 0
    return {
        "images": int(known.sum()),
        "uncertain": int((~known).sum()),
        "blocks": len(np.unique(data.labels.blocks())),
        "classes": list(data.labels.classes),
        "positive": list(plan.positive),
        "folds": plan.folds,
        "deals": plan.deals,
        "seed": plan.seed,
        "test_images": [int(known[fold.test].sum()) for fold in folds],
        "original": plan.original,
        "frozen": plan.frozen,
        "tuned": plan.tuned,
        "champion": plan.champion,
    }


def _row(
    recipe: Recipe, outcomes: Sequence[Outcome], answers: Mapping[str, Answers], plan: Plan
) -> dict[str, Any]:
    known = answers[recipe.name].targets >= 0
    original = answers[plan.original]
    return {
        "name": recipe.name,
        "text": recipe.text,
        "method": recipe.method,
        **_figures(answers[recipe.name]),
        "gain": None if recipe.name == plan.original else intervals(answers[recipe.name], original),
        "folds": [
            {
                "deal": one.fold.deal,
                "accuracy": _accuracy(one, answers[recipe.name].targets, known),
                "validation_accuracy": one.validation_accuracy,
                "validation_loss": one.validation_loss,
                "penalty": one.penalty,
                "temperature": one.temperature,
            }
            for one in outcomes
        ],
        "cpu_minutes": sum(one.cpu_seconds for one in outcomes) / 60,
    }


def _accuracy(outcome: Outcome, targets: Any, known: Any) -> float:
    chosen = known[outcome.fold.test]
    return float((outcome.logits.argmax(1) == targets[outcome.fold.test])[chosen].mean())


def _figures(answers: Answers) -> dict[str, Any]:
    return {"figures": asdict(measure(answers)), "intervals": intervals(answers)}


def _ensemble(name: str, answers: Mapping[str, Answers], plan: Plan) -> dict[str, Any]:
    members = plan.ensembles[name]
    mixed = mix([answers[member] for member in members])
    gain = intervals(mixed, answers[plan.original])
    return {"name": name, "members": list(members), "gain": gain, **_figures(mixed)}


def _champion(champion: Answers, costs: Mapping[str, float]) -> dict[str, Any]:
    unsure = uncertain_gap(champion)
    threshold, recall, precision = best_threshold(champion, _PRECISION)
    return {
        "coverage": metrics.coverage_curve(*certainty(champion)),
        "reliability": metrics.reliability(*certainty(champion)),
        "confidence": dict(zip(("labelled", "uncertain", "difference"), unsure, strict=True))
        if unsure
        else None,
        "at_precision": {"threshold": threshold, "recall": recall, "precision": precision},
        "by_cost": by_cost(champion, **costs) if costs else None,
    }
