"""What `tune` has measured, as a table for a terminal; the chosen rows are marked."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from imagebatch.measure.search import UNREST, Candidate, Search


def table(
    search: Search, best: Candidate, workers: Sequence[Mapping[int, float]], chosen: int, why: str
) -> str:
    """Return a table of every setting tried.

    Args:
        search: What was measured.
        best: The candidate chosen.
        workers: Images per second by number of TorchServe workers, in sweeps.
        chosen: Number of workers chosen.
        why: Why no number of workers was tried; empty if some were.
    """
    lines = ["pack size  in flight  images/s  lowest  highest  measured"]
    for candidate in sorted(search.rates, key=lambda one: (one.pack_size, one.in_flight)):
        cells = f"{candidate.pack_size:>9}  {candidate.in_flight:>9}  {_figures(search.rates[candidate])}"
        lines.append(cells + ("  <- chosen" if candidate == best else ""))
    if search.unrest > UNREST:
        lines.append(
            f"the machine was not quiet: rates of one setting differ by up to +-{100 * search.unrest:.0f} %;"
            " run this again while nothing else runs"
        )
    if why:
        return "\n".join([*lines, f"number of workers not tried: {why}"])
    lines += ["", "  workers  in flight  images/s  lowest  highest  measured"]
    for count in sorted(workers[0]):
        rates = [sweep[count] for sweep in workers]
        lines.append(
            f"{count:>9}  {best.for_workers(count).in_flight:>9}  {_figures(rates)}"
            + ("  <- chosen" * (count == chosen))
        )
    return "\n".join(lines)


def _figures(rates: list[float]) -> str:
    return f"{statistics.median(rates):>8.1f}  {min(rates):>6.1f}  {max(rates):>7.1f}  {len(rates):>8}"
