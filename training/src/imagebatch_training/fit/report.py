"""The verb `report`: the last training as a Markdown table."""

from typing import Any

from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit.train import find_report
from imagebatch_training.settings import Settings


def require_report(settings: Settings) -> dict[str, Any]:
    """Return the last training's report.

    Raises:
        ConfigurationError: There is none, or the served weights are not the ones it speaks of.
    """
    report = find_report(settings)
    if report is None:
        raise ConfigurationError(f"no trained model in {settings.paths.training}: run imagebatch-train train")
    return report


def render_report(report: dict[str, Any]) -> str:
    """Render a report as Markdown: a table with a row per split and method, and what is served."""
    lines = [
        "| split | method | test images | accuracy | 95 % interval | block bootstrap | majority |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(result, report["served"]) for result in report["results"]]
    served = report["served"]
    text = (
        f"Served: the {served['method']} of the {served['split']} split, trained on that split's training "
        f"blocks only. It is the better of the two by {served['chosen_by']}. Hyperparameters were chosen on "
        "these images, too; test images chose nothing."
    )
    return "\n".join([*lines, "", text, *_never_predicted(report), *_confidence(report)]) + "\n"


def served_test(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures on the test images of what is served."""
    served = report["served"]
    test: dict[str, Any] = next(
        result["test"]
        for result in report["results"]
        if (result["split"], result["method"]) == (served["split"], served["method"])
    )
    return test


def _never_predicted(report: dict[str, Any]) -> list[str]:
    test = served_test(report)
    images = ", ".join(
        f"{name} (0 of {test['classes'][name]['images']})" for name in test.get("never_predicted", [])
    )
    return ["", f"**Never predicted on the test images: {images}.**"] if images else []


def _row(result: dict[str, Any], served: dict[str, Any]) -> str:
    test = result["test"]
    bold = "**" if (result["split"], result["method"]) == (served["split"], served["method"]) else ""
    blocks = f", {test['blocks']} blocks" if "blocks" in test else ""
    bootstrap = _interval(test["block_bootstrap"]) if "block_bootstrap" in test else "-"
    cells = [
        result["split"],
        result["method"],
        f"{test['images']}{blocks}",
        f"{bold}{test['accuracy']:.3f}{bold}",
        _interval(test["wilson"]),
        bootstrap,
        f"{test['majority']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _interval(ends: list[float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _confidence(report: dict[str, Any]) -> list[str]:
    figures = served_test(report)["confidence"]
    if figures is None:
        return []
    text = (
        f"Mean top-1 probability of the served model: {figures['certain_mean']:.3f} on the "
        f"{figures['certain_images']} test images, {figures['uncertain_mean']:.3f} on the "
        f"{figures['uncertain_images']} uncertain ones (AUROC {figures['auroc']:.3f})."
    )
    return ["", text]
