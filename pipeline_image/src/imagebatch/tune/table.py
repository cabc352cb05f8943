"""What was measured, as a table for a terminal, the chosen rows marked."""

from __future__ import annotations

import statistics

from imagebatch.tune.search import Candidate, Search


def table(search: Search, best: Candidate, workers: dict[int, list[float]], chosen: int, why: str) -> str:
    """Every setting tried.

    Args:
        search: What was measured.
        best: The candidate chosen.
        workers: Images per second by number of TorchServe workers.
        chosen: Number of workers chosen.
        why: Why no number of workers was tried; empty if some were.
    """
    lines = ["pack size  in flight  images/s  lowest  highest  measured"]
    for candidate in sorted(search.rates, key=lambda one: (one.pack_size, one.in_flight)):
        cells = f"{candidate.pack_size:>9}  {candidate.in_flight:>9}  {_figures(search.rates[candidate])}"
        lines.append(cells + ("  <- chosen" if candidate == best else ""))
    if why:
        return "\n".join([*lines, f"number of workers not tried: {why}"])
    lines += ["", "workers               images/s  lowest  highest  measured"]
    for count, rates in sorted(workers.items()):
        lines.append(f"{count:>7}               {_figures(rates)}" + ("  <- chosen" * (count == chosen)))
    return "\n".join(lines)


def _figures(rates: list[float]) -> str:
    return f"{statistics.median(rates):>8.1f}  {min(rates):>6.1f}  {max(rates):>7.1f}  {len(rates):>8}"
