"""Simulated nights: histories with and without something planted in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from imagebatch.history.summary import RunSummary

LABELS = ("mono-sound", "mono-defective", "poly-sound", "poly-defective")
SHARES = np.array([0.3, 0.08, 0.5, 0.12])
NIGHTS = 60


def nights(
    seed: int,
    *,
    slow: int = NIGHTS,
    shift: int = NIGHTS,
    weekly: float = 0.0,
    slope: float = 0.0,
    resemblance: float = 0.0,
    pipeline: str = "simulated",
) -> list[RunSummary]:
    """60 nights with the noise of real ones.

    Args:
        seed: Of the noise.
        slow: Throughput is a fifth lower from this night.
        shift: Half as many defective mono cells more from this night.
        weekly: Share of images that are missing on Saturdays and Sundays.
        slope: Confidence changes by this much over all nights.
        resemblance: Correlation of each figure with that of the night before.
        pipeline: Whose runs they are; part of their ids where it is another one.
    """
    chance = np.random.default_rng(seed)
    noise = _noise(chance, resemblance)
    runs = []
    for night in range(NIGHTS):
        started = datetime(2026, 9, 1, 2, tzinfo=UTC) + timedelta(days=night)
        images, speed, confidence, unsure, drift, accuracy, brightness = noise[night, :7]
        shares = SHARES * (1 + np.sqrt((1 - SHARES) / SHARES / 900) * noise[night, 7:])
        shares[1] *= 1.5 if night >= shift else 1
        listed = int((2600 + 40 * images) * (1 - weekly * (started.weekday() >= 5)))
        failed = int(chance.binomial(listed, 0.004))
        counts = chance.multinomial(listed - failed, shares / shares.sum())
        runs.append(
            RunSummary(
                run_id=f"{'' if pipeline == 'simulated' else pipeline + '-'}night-{night:02}",
                pipeline=pipeline,
                started=started,
                model="solar-cells 1.0 sha256:0",
                listed=listed,
                predicted=listed - failed,
                failed=failed,
                rejected=0,
                reasons={},
                classes=dict(zip(LABELS, map(int, counts), strict=True)),
                images_per_second=(240 + 10 * speed) * (0.8 if night >= slow else 1),
                confidence=0.78 + 0.006 * confidence + slope * night / NIGHTS,
                unsure=0.05 + 0.005 * unsure,
                drift=abs(0.07 + 0.015 * drift),
                estimated_accuracy=0.85 + 0.008 * accuracy,
                brightness=0.59 + 0.008 * brightness,
            )
        )
    return runs


def _noise(chance: np.random.Generator, resemblance: float) -> npt.NDArray[np.float64]:
    """Standard normal, each night correlated with the one before: shape (nights, figures)."""
    noise = chance.normal(size=(NIGHTS, 7 + len(LABELS)))
    for night in range(1, NIGHTS):
        noise[night] = resemblance * noise[night - 1] + np.sqrt(1 - resemblance**2) * noise[night]
    return noise
