"""The solar cells' recipes on folds of whole blocks, into docs/explanation/model.md.

    python3.11 -m benchmarks.run model-folds [-- --publish]

`imagebatch-train folds` does the work, and keeps what it has computed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from imagebatch_training.folds.compare import headline, render
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.lib.published import show
from tools.paths import ROOT, program, say

PAGE = ROOT / "docs" / "explanation" / "model.md"
FIGURES = PAGE.with_suffix(".json")
PICTURES = ROOT / "docs" / "img"
DECIMALS = 4


def main() -> int:
    """Compare, publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--publish", action="store_true", help="keep the result in docs/")
    asked = parser.parse_args()
    done = subprocess.run(  # noqa: S603 - a list built here
        [program("training", "imagebatch-train"), "folds", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    result = _rounded(json.loads(done.stdout))
    say(render(result))
    if asked.publish:
        FIGURES.write_text(json.dumps(headline(result) | result, indent=1) + "\n", "utf-8")
        show("folds", render(result), PAGE)
        show("deals", _deals(result), PAGE)
        show("champion", _champion(result), PAGE)
        _draw_recipes(result, PICTURES / "model-recipes.svg")
        _draw_confidence(result["champion"], PICTURES / "model-confidence.svg")
    return 0


def _rounded(value: Any) -> Any:
    """As published: digits beyond these are another machine's."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, DECIMALS) if isinstance(value, float) else value


def _deals(result: dict[str, Any]) -> str:
    deals, count = result["data"]["deals"], result["data"]["folds"]
    heads = [f"deal {deal + 1}, fold by fold" for deal in range(deals)]
    lines = [f"| recipe | {' | '.join(heads)} | chosen on validation |", "|---|" + "---|" * (deals + 1)]
    for row in result["recipes"]:
        folds = [fold["accuracy"] for fold in row["folds"]]
        cells = [
            " ".join(f"{one:.3f}".removeprefix("0") for one in folds[count * deal : count * (deal + 1)])
            for deal in range(deals)
        ]
        times = result["chosen"]["times"][row["name"]]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {times} of {len(folds)} |")
    return "\n".join(lines)


def _champion(result: dict[str, Any]) -> str:
    champion, target = result["champion"], result["target"]
    rows = {row["name"]: row for row in result["recipes"]}
    row = rows[result["data"]["champion"]]
    lines = ["| of the demo's recipe | figure | 95 % interval | aimed at |", "|---|---|---|---|"]
    said = {"accuracy": "accuracy", "macro_f1": "macro-F1", "recall": "recall of defective cells"}
    for key, text in (said | {"precision": "precision of defective cells"}).items():
        low, high = row["intervals"][key]
        aim = f"{target[key]:.3f}" if key in target else "-"
        lines.append(f"| {text} | {row['figures'][key]:.3f} | {low:.3f} to {high:.3f} | {aim} |")
    tuned, frozen = rows[result["data"]["tuned"]], rows[result["data"]["frozen"]]
    for key, text in said.items():
        low, high = result["fine_tune"]["gain"][key]
        gain = tuned["figures"][key] - frozen["figures"][key]
        aim = "above 0" if key == "accuracy" else "-"
        lines.append(
            f"| {tuned['name']} less {frozen['name']}, {text} | {gain:+.3f}"
            f" | {low:+.3f} to {high:+.3f} | {aim} |"
        )
    aim = f"at most {target['calibration_error']:.2f}"
    lines.append(f"| calibration error | {row['figures']['calibration_error']:.3f} | - | {aim} |")
    sure = champion["confidence"]
    low, high = sure["difference"]
    gap = sure["labelled"] - sure["uncertain"]
    lines.append(
        f"| mean top-1 probability, labelled less uncertain cells | {gap:.3f}"
        f" | {low:.3f} to {high:.3f} | above 0 |"
    )
    point = champion["at_precision"]
    text = f"recall where precision is {point['precision']:.3f} (threshold {point['threshold']:.2f})"
    lines.append(f"| {text} | {point['recall']:.3f} | - | {target['recall']:.3f} |")
    return "\n".join([*lines, *_by_cost(champion["by_cost"])])


def _by_cost(found: dict[str, Any]) -> list[str]:
    low, high = found["interval"]
    price = f"a missed cell costs {found['missed']:g}, a false alarm {found['false_alarm']:g}"
    cost = f"cost of 100 cells there: {found['cost']:.1f}, of the likeliest {found['cost_of_names']:.1f}"
    cells = [
        [f"recall at the threshold {found['threshold']:.2f} ({price})", f"{found['recall']:.3f}", "-", "-"],
        ["precision there", f"{found['precision']:.3f}", "-", "-"],
        [f"{cost}; saved", f"{found['saved']:.1f}", f"{low:.1f} to {high:.1f}", "above 0"],
    ]
    return [f"| {' | '.join(row)} |" for row in cells]


def _draw_recipes(result: dict[str, Any], path: Path) -> None:
    rows = result["recipes"][::-1]
    figure = Figure(figsize=(8, 0.34 * len(rows) + 1.1), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        (low, high), accuracy = row["intervals"]["accuracy"], row["figures"]["accuracy"]
        mine = row["name"] == result["data"]["champion"]
        colour = "#1b6ca8" if mine else "#808080"
        axes.plot([low, high], [place, place], color=colour, linewidth=2 if mine else 1)
        folds = [fold["accuracy"] for fold in row["folds"]]
        axes.plot(folds, [place] * len(folds), "|", color=colour, alpha=0.35, markersize=7)
        axes.plot(accuracy, place, "o", color=colour)
    axes.axvline(result["target"]["accuracy"], color="black", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xlabel(
        "accuracy on blocks that were not trained on; line: 95 %; strokes: folds; dotted: aimed at"
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _draw_confidence(champion: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    coverage, reliability = figure.subplots(1, 2)
    kept = [(row["coverage"], row["accuracy"]) for row in champion["coverage"] if row["images"]]
    coverage.plot(*zip(*kept, strict=True), color="#1b6ca8")
    coverage.set(xlabel="share of the cells that are answered, surest first", ylabel="accuracy of these")
    bins = champion["reliability"]
    reliability.plot([0, 1], [0, 1], ":", color="black", linewidth=1)
    reliability.plot([one[1] for one in bins], [one[2] for one in bins], "-", color="#1b6ca8")
    largest = max(one[0] for one in bins)
    for images, confidence, right in bins:
        reliability.plot(
            confidence, right, "o", color="#1b6ca8", markersize=3 + 9 * (images / largest) ** 0.5
        )
    reliability.set(
        xlabel="top-1 probability", ylabel="accuracy (dots: by cells)", xlim=(0.2, 1.02), ylim=(0.2, 1.02)
    )
    for axes in (coverage, reliability):
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        _open(axes)
    _save(figure, path)


def _open(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    # Text as text and no date: the file is small, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "imagebatch", "font.size": 9})
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
