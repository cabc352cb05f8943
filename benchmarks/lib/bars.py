"""The plot of `peers.py`: medians as bars, ranges as lines, as a small SVG file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the medians as bars, ranges as lines, into an SVG file."""
    # Text as text and no date: the file is small, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "imagebatch", "font.size": 9})
    colours = {"ours": "#1b6ca8", "users": "#b0b0b0", "script": "#d0d0d0", "engine": "#8fbc8f"}
    rows = sorted(result["contestants"].values(), key=lambda row: row["median"])
    figure = Figure(figsize=(8, 0.3 * len(rows) + 1))
    axes = figure.subplots()
    labels = [
        row["label"].replace("*", "").replace("`", "") + (", our engine" if row["group"] == "engine" else "")
        for row in rows
    ]
    medians = [row["median"] for row in rows]
    axes.barh(labels, medians, color=[colours[row["group"]] for row in rows])
    low = [row["median"] - row["lowest"] for row in rows]
    high = [row["highest"] - row["median"] for row in rows]
    axes.errorbar(medians, labels, xerr=[low, high], fmt="none", ecolor="black", elinewidth=0.8)
    axes.set_xlabel("images per second, two cores")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
