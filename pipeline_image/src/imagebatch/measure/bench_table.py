"""The figures of `bench` as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from imagebatch.measure import Ceiling, Figure, Verdict

_NAMES = {
    Ceiling.STORAGE: "storage: list, read, hash",
    Ceiling.DECODE: "decode, every core",
    Ceiling.MODEL: "model, every core",
    Ceiling.IN_PROCESS: "in-process: decode and model, every core",
    Ceiling.SERVER: "server: ready-made requests",
    Ceiling.ACHIEVED: "achieved: score, from files to finished shards",
}
_COLUMNS = ("", "images/s", "lowest", "highest", "CPU ms/image")


def table(figures: Mapping[Ceiling, Figure], found: Verdict, missing: str) -> str:
    """Return medians with their range, and what they come to.

    Args:
        figures: What was measured.
        found: What it comes to.
        missing: Why the in-process ceilings were not measured; empty if they were.
    """
    rows = [_COLUMNS, *(_row(_NAMES[name], figure) for name, figure in figures.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    shares = ", ".join(f"{name} {value:.2f}" for name, value in found.milliseconds.items())
    lines += ["", f"ms of wall time per image: {shares}", found.line]
    if missing:
        lines.append(f"in-process ceilings not measured: {missing}")
    return "\n".join(lines)


def _row(name: str, figure: Figure) -> tuple[str, ...]:
    rates = (figure.rate, figure.lowest, figure.highest)
    return (name, *(f"{rate:.1f}" for rate in rates), f"{figure.cpu:.2f}")
