"""The search: a coarse grid, steps to better neighbours, then a final among those that are nearly as good.

Measuring is noisy, so a difference below the spread of repeated measurements is none: among settings that
are as good, the one with the fewest images under way wins, for it costs least memory and least lost work.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from imagebatch.settings import MOST_IN_FLIGHT, MOST_PER_PACK

# Below this share of the rate two settings are a tie, however calm the machine was.
LEAST_DIFFERENCE = 0.02
# At most so many go into the final; each is measured again in every round of it.
FINALISTS = 4

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
        """What is in memory at once, and lost when the scorer is killed."""
        return self.in_flight * self.pack_size

    def neighbours(self) -> Iterator[Candidate]:
        """Half and double the pack, half as many requests more or less."""
        step = max(1, self.in_flight // 2)
        for pack_size in (self.pack_size // 2, self.pack_size * 2):
            if 1 <= pack_size <= MOST_PER_PACK:
                yield Candidate(self.in_flight, pack_size)
        for in_flight in (self.in_flight - step, self.in_flight + step):
            if 1 <= in_flight <= MOST_IN_FLIGHT:
                yield Candidate(in_flight, self.pack_size)


@dataclass(slots=True)
class Search:
    """Finds the best candidate.

    Args:
        measure: Images per second with a candidate.
        rounds: Times that each finalist is measured in all.

    Attributes:
        rates: Everything measured, images per second, by candidate.
    """

    measure: Callable[[Candidate], float]
    rounds: int
    rates: dict[Candidate, list[float]] = field(default_factory=dict)

    def run(self, grid: Iterable[Candidate]) -> Candidate:
        """Measures the grid, climbs from its best, and decides among the finalists."""
        for candidate in grid:
            self._once(candidate)
        tried: set[Candidate] = set()
        while (best := self._best()) not in tried:
            tried.add(best)
            for candidate in best.neighbours():
                self._once(candidate)
        finalists = sorted(self.rates, key=self.rate, reverse=True)[:FINALISTS]
        finalists = [one for one in finalists if self.rate(one) >= self.rate(best) * (1 - self._doubt(best))]
        for _ in range(self.rounds - 1 if len(finalists) > 1 else 0):
            for candidate in finalists:
                self.rates[candidate].append(self.measure(candidate))
        return self._cheapest(finalists)

    def rate(self, candidate: Candidate) -> float:
        """Median of what was measured, images per second."""
        return statistics.median(self.rates[candidate])

    def spread(self, candidate: Candidate) -> float:
        """Half the range as a share of the median; 0 after one measurement."""
        rates = self.rates[candidate]
        return (max(rates) - min(rates)) / 2 / self.rate(candidate)

    def _once(self, candidate: Candidate) -> None:
        if candidate not in self.rates:
            self.rates[candidate] = [self.measure(candidate)]

    def _best(self) -> Candidate:
        return max(self.rates, key=self.rate)

    def _doubt(self, best: Candidate) -> float:
        # Single measurements: one may be off by twice what counts as a difference, and so may the best.
        return 4 * max(LEAST_DIFFERENCE, self.spread(best))

    def _cheapest(self, finalists: list[Candidate]) -> Candidate:
        best = max(finalists, key=self.rate)
        tie = max(LEAST_DIFFERENCE, *(self.spread(one) for one in finalists))
        as_good = [one for one in finalists if self.rate(one) >= self.rate(best) * (1 - tie)]
        return min(as_good, key=lambda one: (one.images_under_way, one.in_flight))


def grid(most_images: int) -> list[Candidate]:
    """The coarse grid, without packs that would swallow the whole input."""
    packs = [size for size in PACKS if size * 4 <= most_images] or [max(1, most_images // 4)]
    return [Candidate(in_flight, size) for size in packs for in_flight in IN_FLIGHT]
