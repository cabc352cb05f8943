"""The frontier as a picture: agreement against speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

_CASCADES = {"openvino-bf16-cascade": "bfloat16 cascade", "openvino-int8-cascade": "8-bit cascade"}

_EDGE = 0.8  # of the width: beyond it a name does not fit at the right of a point
_WIDE = 40.0  # images per CPU-second: as wide as a name


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the lower of both agreements against images per CPU-second."""
    mpl.rcParams["svg.hashsalt"] = "imagebatch"  # the same figures give the same bytes
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, label in _CASCADES.items():
        rows = [one for one in result["engines"] if one["name"] == name]
        points = sorted((one["margin"], _x(one), _y(one)) for one in rows)
        axes.plot([x for _, x, _ in points], [y for _, _, y in points], ".-", label=f"{label}, by margin")
        fitted = next(one for one in rows if "fitted" in one["label"])
        axes.plot(_x(fitted), _y(fitted), "*", color="black", markersize=11, label=None)
    alone = sorted((one for one in result["engines"] if one["name"] not in _CASCADES), key=_x)
    for number, one in enumerate(alone):
        axes.plot(_x(one), _y(one), "s", color="grey")
        # A name stands right of its point, but for a neighbour or the edge.
        right = [_x(other) - _x(one) for other in alone[number + 1 :] if _y(other) == _y(one)]
        left = _x(one) > _EDGE * _x(alone[-1]) or min(right, default=_WIDE) < _WIDE
        offset, side = ((-5, -11), "right") if left else ((5, -11), "left")
        axes.annotate(
            one["name"], (_x(one), _y(one)), textcoords="offset points", xytext=offset, ha=side, fontsize=8
        )
    axes.axhline(0.995, color="black", linestyle=":", linewidth=1)
    axes.annotate("99.5 %: released", (0.01, 0.9952), xycoords=("axes fraction", "data"), fontsize=8)
    axes.set(
        xlabel="images per CPU-second, file to logits",
        ylabel="agreement with float32 torch\n(the lower of two sets)",
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1, 1))
    axes.legend(title="stars: the fitted margin", fontsize=8, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _x(one: dict[str, Any]) -> float:
    return float(one["speed"]["median"])


def _y(one: dict[str, Any]) -> float:
    return float(min(one["agreement"].values()))
