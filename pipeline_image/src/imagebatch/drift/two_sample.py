"""Two-sample tests, each giving a p-value and an effect size in [0, 1] where 0 means no difference.

Family-wise error is held by Holm's procedure (S. Holm, 1979): with probability at least 1 - alpha, a run that
is drawn from the baseline's own distribution gives no alarm at all, however many things are compared.

The p-values of one dimension are computed here from SciPy's special functions: scipy.stats, whose values they
are, takes longer to import than a run's images take to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

PERMUTATIONS = 1999
# The test's cost grows with the square; 250 of each are enough to see a shift worth an alarm.
MOST_ROWS = 250
_LEAST_EXPECTED = 5.0


def numbers(before: Floats, now: Floats) -> tuple[float, float]:
    """Return Kolmogorov-Smirnov's p-value and the largest distance of the distribution functions.

    The p-value is the asymptotic one with the correction for small samples of M. A. Stephens (1970).
    """
    if len(before) == 0 or len(now) == 0:
        return 1.0, 0.0
    values = np.concatenate([before, now])
    shares = (np.searchsorted(np.sort(sample), values, "right") / len(sample) for sample in (before, now))
    distance = float(np.abs(np.subtract(*shares)).max())
    root = np.sqrt(len(before) * len(now) / len(values))
    return float(special.kolmogorov((root + 0.12 + 0.11 / root) * distance)), distance


def categories(before: Sequence[str], now: Sequence[str]) -> tuple[float, float]:
    """Return the p-value of the chi-squared test, and half the sum of the shares' differences.

    Categories whose expected count is below 5 are pooled; where too little is left to pool, Fisher's exact
    test of the rare against the rest decides.
    """
    counts = [Counter(before), Counter(now)]
    names = sorted(counts[0].keys() | counts[1].keys())
    table = np.array([[count[name] for name in names] for count in counts], float)
    if table.shape[1] < 2 or not table.sum(axis=1).all():  # noqa: PLR2004 (one category: nothing to compare)
        return 1.0, 0.0
    shares = table / table.sum(axis=1, keepdims=True)
    effect = float(np.abs(shares[0] - shares[1]).sum() / 2)
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    rare = expected < _LEAST_EXPECTED
    pooled = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)]) if rare.any() else table
    if pooled.shape[1] == 2:  # noqa: PLR2004 (two by two)
        return _fisher(pooled), effect
    if pooled.shape[1] < 2:  # noqa: PLR2004 (all of them rare)
        return 1.0, effect
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    expected = np.outer(pooled.sum(axis=1), pooled.sum(axis=0)) / pooled.sum()
    return float(special.chdtrc(pooled.shape[1] - 1, ((pooled - expected) ** 2 / expected).sum())), effect


def vectors(before: Floats, now: Floats, seed: int) -> tuple[float, float]:
    """Compute the maximum mean discrepancy, p-value by permutation (A. Gretton and others, JMLR 13, 2012).

    Args:
        before: Shape (rows, dimensions).
        now: Shape (rows, dimensions).
        seed: Of the permutations and of the choice of at most 250 rows of each.

    Returns:
        p-value, at least 1/2000, and the discrepancy as a share of its largest possible value.
    """
    if len(before) < 2 or len(now) < 2:  # noqa: PLR2004 (no spread in one row)
        return 1.0, 0.0
    chance = np.random.default_rng(seed)
    first, second = (_at_most(rows, chance) for rows in (before, now))
    kernel = _gaussian(np.concatenate([first, second]))
    weights = np.concatenate([np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))])
    shuffled = chance.permuted(np.tile(weights, (PERMUTATIONS, 1)), axis=1)
    null = np.einsum("ij,ij->i", shuffled @ kernel, shuffled)
    seen = float(weights @ kernel @ weights)
    at_least = int((null >= seen - 1e-12).sum())
    return (1 + at_least) / (1 + PERMUTATIONS), float(np.sqrt(max(seen, 0.0) / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's procedure.

    Rejecting those that are at most alpha makes one or more false rejections with probability at most alpha.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def _fisher(table: Floats) -> float:
    """Return the two-sided p-value of Fisher's exact test.

    It is the probability, given the sums of rows and columns, of all tables no more probable than this one.
    """
    first, second = table.sum(axis=1)
    column = table[:, 0].sum()
    counts = np.arange(max(0, column - second), min(first, column) + 1)
    logs = sum(
        special.gammaln(size + 1) - special.gammaln(taken + 1) - special.gammaln(size - taken + 1)
        for size, taken in ((first, counts), (second, column - counts))
    )
    probable = np.exp(logs - special.logsumexp(logs))
    seen = probable[int(table[0, 0] - counts[0])]
    return float(min(1.0, probable[probable <= seen * (1 + 1e-7)].sum()))


def _at_most(rows: Floats, chance: np.random.Generator) -> Floats:
    return rows if len(rows) <= MOST_ROWS else rows[chance.choice(len(rows), MOST_ROWS, replace=False)]


def _gaussian(rows: Floats) -> Floats:
    """Return the Gaussian kernel of all pairs; its width is the median distance."""
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    width = float(np.median(distances[np.triu_indices(len(rows), 1)]))
    kernel: Floats = np.exp(-distances / max(width, 1e-9))
    return kernel
