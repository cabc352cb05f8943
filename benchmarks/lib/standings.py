"""Measurements of `peers.py` as medians and a table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks.lib.contestants import CONTESTANTS, WHOLE, Contestant

GROUPS = {
    "ours": "imagebatch, and the most that this machine can do",
    "users": "servers as their users run them: one image a request, eager torch, Pillow",
    "script": "scripts without a server: eager torch",
    "engine": "peers handed our engine, our pixels and several images a request",
}


def summary(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges of every contestant that was measured, in the order of the table."""
    taken: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        taken[entry["name"]].append(entry)
    known = [each for each in [*CONTESTANTS, *WHOLE] if each.name in taken]
    rows = {each.name: _row(each, taken[each.name]) for each in known}
    for name, row in rows.items():
        if name != "ours" and (paired := _paired(taken["ours"], taken[name])):
            row["ours_is"] = paired
    return {"contestants": rows, **_ratios(rows)}


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown, the fastest of each group first."""
    rows = result["contestants"]
    lines = [
        "| | images/s, median | lowest to highest | CPU-ms per image | imagebatch is | start, s |",
        "|---|---|---|---|---|---|",
    ]
    for group, title in GROUPS.items():
        names = [name for name, row in rows.items() if row["group"] == group]
        lines += [f"| *{title}* | | | | | |"] if names else []
        for name in sorted(names, key=lambda name: -rows[name]["median"]):
            row = rows[name]
            ratio = row.get("ours_is")
            factor = "{median:.2f} x ({lowest:.2f} to {highest:.2f})".format(**ratio) if ratio else ""
            lines.append(
                f"| {row['label']} | {row['median']:.0f} | {row['lowest']:.0f} to {row['highest']:.0f}"
                f" | {row['cpu_ms']:.1f} | {factor} | {row['startup']:.0f} |"
            )
    return "\n".join([*lines, "", _remarks(rows)])


def grid(entries: Sequence[dict[str, Any]]) -> str:
    """Stock TorchServe's settings, the fastest first, as text."""
    rates: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        rates[entry["name"]].append(_rate(entry))
    medians = sorted(((statistics.median(found), name) for name, found in rates.items()), reverse=True)
    return "\n".join(f"{name:<24}{median:7.1f} images/s" for median, name in medians)


def _row(contestant: Contestant, taken: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rates = [_rate(entry) for entry in taken]
    return {
        "label": contestant.label,
        "group": contestant.group,
        "rounds": len(taken),
        "images": taken[-1]["images"],
        "median": round(statistics.median(rates), 1),
        "lowest": round(min(rates), 1),
        "highest": round(max(rates), 1),
        "cpu_ms": round(statistics.median(1000 * entry["cpu"] / entry["images"] for entry in taken), 2),
        "startup": round(statistics.median(entry["startup"] for entry in taken), 1),
        "agreement": min(entry["agreement"] for entry in taken),
    }


def _paired(ours: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Ours over another, in rounds of both: a machine that changes its speed between rounds favours none."""
    our, other = ({(one["race"], one["round"]): one for one in taken} for taken in (ours, others))
    ratios = [_rate(our[key]) / _rate(other[key]) for key in our.keys() & other.keys()]
    if not ratios:
        return None
    found = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {name: round(ratio, 3) for name, ratio in found.items()}


def _rate(entry: dict[str, Any]) -> float:
    return float(entry["images"] / entry["seconds"])


def _ratios(rows: dict[str, Any]) -> dict[str, float]:
    """Ours over what it is held against, where both were measured; of several, the hardest to beat."""
    against = {"ceiling": ["ceiling"], "stock": ["stock-tuned"], "full_decode": ["ours-whole"]}
    against |= {"dataloader": ["dataloader"], "ray_data": ["ray-data"]}
    against["best_server"] = [name for name, row in rows.items() if row["group"] == "users"]
    against["best_with_our_engine"] = [name for name, row in rows.items() if row["group"] == "engine"]
    found = {}
    for name, others in against.items():
        ratios = [rows[other]["ours_is"]["median"] for other in others if "ours_is" in rows.get(other, {})]
        if ratios:
            found[f"ratio_to_{name}"] = min(ratios)
    return found


def _remarks(rows: dict[str, Any]) -> str:
    eager = [row["agreement"] for row in rows.values() if row["group"] in {"users", "script"}]
    agreed = (
        f" Eager torch and Pillow give the same first label on at least {min(eager):.1%}." if eager else ""
    )
    images = sorted({row["images"] for row in rows.values() if "ray" not in row["label"].lower()})
    rounds = sorted({row["rounds"] for row in rows.values()})
    return (
        f"Rounds: {_range(rounds)}; photographs per measurement: {_range(images)}. All with our engine gave"
        f" our very probabilities on every photograph.{agreed}"
    )


def _range(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
