"""The search of `tune`: a coarse grid, then steps to better neighbours, then a final among near equals.

Rates that are compared are always measured in turn, because a machine is faster now and slower then.
Measuring is noisy, so a difference below the range of repeated measurements counts as a tie. Among ties the
setting with the fewest images under way wins, because it costs the least memory and the least lost work.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from imagebatch.settings import MOST_IN_FLIGHT, MOST_PER_PACK

K = TypeVar("K")

# Differences below this share of the rate are always a tie, however quiet the machine was.
LEAST_DIFFERENCE = 0.02
# Differences above this share are never a tie, however noisy the machine was.
MOST_DIFFERENCE = 0.1
# At most this many candidates go into the final; each is measured again in every round of it.
FINALISTS = 4
# Candidates of the grid below this share of the best rate are not measured a second time.
HOPELESS = 0.7
MOST_STEPS = 8
# Above this spread the machine was busy with other work, and the choice may be chance.
UNREST = 0.1

PACKS = (8, 32, 128)
IN_FLIGHT = (2, 4, 8)


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """Settings to try.

    Attributes:
        in_flight: Most requests under way at once.
        pack_size: Most images per request.
    """

    in_flight: int
    pack_size: int

    @property
    def images_under_way(self) -> int:
        """The most images in memory at once, and lost when the scorer is killed."""
        return self.in_flight * self.pack_size

    def for_workers(self, workers: int) -> Candidate:
        """Return the same with at least two requests per worker: one being answered and one waiting."""
        return Candidate(max(self.in_flight, min(2 * workers, MOST_IN_FLIGHT)), self.pack_size)

    def neighbours(self) -> Iterator[Candidate]:
        """Yield candidates with half and double the pack, and with half as many requests more or less."""
        step = max(1, self.in_flight // 2)
        for pack_size in (self.pack_size // 2, self.pack_size * 2):
            if 1 <= pack_size <= MOST_PER_PACK:
                yield Candidate(self.in_flight, pack_size)
        for in_flight in (self.in_flight - step, self.in_flight + step):
            if 1 <= in_flight <= MOST_IN_FLIGHT:
                yield Candidate(in_flight, self.pack_size)


@dataclass(slots=True)
class Search:
    """A search for the best candidate.

    Args:
        measure: Images per second with a candidate.
        rounds: Times that each finalist is measured in all.

    Attributes:
        rates: Everything measured, images per second, by candidate.
    """

    measure: Callable[[Candidate], float]
    rounds: int
    rates: dict[Candidate, list[float]] = field(default_factory=dict)

    def run(self, grid: Sequence[Candidate]) -> Candidate:
        """Measure the grid, climb from its best, and decide among the finalists."""
        best = self._climbed(self._coarse(grid))
        finalists = self._finalists(best)
        if len(finalists) == 1:
            return best
        sweeps = [{one: self._again(one) for one in finalists} for _ in range(self.rounds)]
        return decide(sweeps, _cost)

    @property
    def unrest(self) -> float:
        """The largest spread of any candidate; if large, the machine was busy with other work."""
        return max(map(self.spread, self.rates))

    def _coarse(self, grid: Sequence[Candidate]) -> Candidate:
        """Return the grid's best, measured in both directions: a machine that gets slower favours none."""
        for candidate in grid:
            self._again(candidate)
        best = self.rate(self._fastest(grid))
        for candidate in reversed(grid):
            if self.rate(candidate) >= best * HOPELESS:
                self._again(candidate)
        return self._fastest(grid)

    def _climbed(self, best: Candidate) -> Candidate:
        """Move to a better neighbour as long as one wins twice, measured in turn with the best so far."""
        for _ in range(MOST_STEPS):
            rivals = [one for one in best.neighbours() if one not in self.rates]
            if not rivals:
                break
            self._again(best)
            for rival in rivals:
                self._again(rival)
            rival = self._fastest(rivals)
            if self.rate(rival) <= self.rates[best][-1]:
                break
            self._again(best)
            self._again(rival)
            if self.rate(rival) <= statistics.median(self.rates[best][-2:]) * (1 + LEAST_DIFFERENCE):
                break
            best = rival
        return best

    def rate(self, candidate: Candidate) -> float:
        """Return the median of what was measured, images per second."""
        return statistics.median(self.rates[candidate])

    def spread(self, candidate: Candidate) -> float:
        """Return half the range as a share of the median; 0 after one measurement."""
        rates = self.rates[candidate]
        return (max(rates) - min(rates)) / 2 / self.rate(candidate)

    def _again(self, candidate: Candidate) -> float:
        rate = self.measure(candidate)
        self.rates.setdefault(candidate, []).append(rate)
        return rate

    def _fastest(self, candidates: Sequence[Candidate]) -> Candidate:
        return max(candidates, key=self.rate)

    def _finalists(self, best: Candidate) -> list[Candidate]:
        """Return the fastest, and the cheapest of those that may be as fast."""
        least = self.rate(best) * (1 - self._doubt(best))
        near = [one for one in self.rates if self.rate(one) >= least]
        fastest = sorted(near, key=self.rate, reverse=True)[: FINALISTS // 2]
        cheapest = sorted((one for one in near if one not in fastest), key=_cost)
        return fastest + cheapest[: FINALISTS - len(fastest)]

    def _doubt(self, best: Candidate) -> float:
        # Both rates come from few measurements; each may be wrong by the spread, or by what counts as a tie.
        return 2 * max(LEAST_DIFFERENCE, self.spread(best))


def decide(sweeps: Sequence[Mapping[K, float]], cost: Callable[[K], Any]) -> K:
    """Return the cheapest of those that are as good as the best.

    Args:
        sweeps: Rates of the same candidates, measured side by side; each sweep is compared within itself, so
            that a machine that is faster or slower in one of them changes nothing.
        cost: What to spare among equals, by the order of its values.
    """
    shares: dict[K, list[float]] = {}
    for sweep in sweeps:
        mean = statistics.fmean(sweep.values())
        for candidate, rate in sweep.items():
            shares.setdefault(candidate, []).append(rate / mean)
    score = {candidate: statistics.median(found) for candidate, found in shares.items()}
    spread = max(max(found) - min(found) for found in shares.values())
    tie = min(MOST_DIFFERENCE, max(LEAST_DIFFERENCE, spread))
    least = max(score.values()) * (1 - tie)
    return min((one for one in score if score[one] >= least), key=lambda one: (cost(one), -score[one]))


def _cost(candidate: Candidate) -> tuple[int, int]:
    return candidate.images_under_way, candidate.in_flight


def grid(most_images: int) -> list[Candidate]:
    """Return the coarse grid, without packs so large that the input would make fewer than four."""
    packs = [size for size in PACKS if size * 4 <= most_images] or [max(1, most_images // 4)]
    return [Candidate(in_flight, size) for size in packs for in_flight in IN_FLIGHT]
