"""The image checks of the quality report: what looks wrong in an image that decodes without an error.

Absolute thresholds are for photographs of anything, so they only name what is plainly broken. Where a
baseline is known, an image is also compared with what the model was trained on.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imagebatch.contracts.addresses import without_permission

Row = dict[str, Any]

# Grey levels, 0 to 1, and log10 of the variance of the Laplacian at 256 pixels.
BLANK_CONTRAST = 0.008
DARK_BRIGHTNESS = 0.04
BLURRED_SHARPNESS = 0.5
# Of 256 bits. Photographs of different things differ in about 128, the same one saved again in 0 to 6.
SAME_BITS = 8
# A hash of an image with hardly any structure says nothing.
HASHABLE_CONTRAST = 0.02
_MANY = 3000


class Check(StrEnum):
    """What a look at an image can find."""

    UNDECODABLE = "undecodable"
    BLANK = "blank"
    TOO_DARK = "too_dark"
    BLURRED = "blurred"
    WRONG_MODE = "wrong_mode"
    NEAR_DUPLICATE = "near_duplicate"
    LOW_DEPTH = "low_depth"
    REDUCED_PAGE = "reduced_page"


SAYS = {
    Check.UNDECODABLE: "a decoder gives up on it",
    Check.BLANK: f"one tone all over: contrast below {BLANK_CONTRAST:g}",
    Check.TOO_DARK: f"mean grey below {DARK_BRIGHTNESS:g} of full",
    Check.BLURRED: f"hardly an edge: sharpness below {BLURRED_SHARPNESS:g}",
    Check.WRONG_MODE: "another colour mode than nearly all the others",
    Check.NEAR_DUPLICATE: f"at most {SAME_BITS} of 256 bits from another image's perceptual hash",
    Check.LOW_DEPTH: "more than 8 bits per sample, and values that do not fit the range that is declared",
    Check.REDUCED_PAGE: "the page that is seen says that it is a reduced copy of another",
}
# Seen often in good data, so they never count for the gate.
HARMLESS = frozenset({Check.NEAR_DUPLICATE, Check.WRONG_MODE})


def findings(sample: pa.Table) -> list[Row]:
    """Return what the checks find in a sample.

    Args:
        sample: SAMPLE_SCHEMA.

    Returns:
        One row per image and check: `image_id`, `uri`, `check`, `detail`, and of a near-duplicate `twin`, the
        earlier image; in the order of the sample.
    """
    rows = sample.drop_columns(["layout"]).to_pylist()
    usual = _usual_mode(rows)
    found = [
        {
            "image_id": row["image_id"],
            "uri": without_permission(row["uri"]),
            "check": check.value,
            "detail": detail,
        }
        for row in rows
        for check, detail in _of_one(row, usual)
    ]
    return found + _near_duplicates([row for row in rows if _hashable(row)])


def suspects(found: list[Row]) -> int:
    """Count the images with a finding that counts for the gate."""
    return len({row["image_id"] for row in found if row["check"] not in HARMLESS})


def findings_json(looked_at: int, found: list[Row]) -> bytes:
    """Return the content of quality/images.json: `looked_at`, `suspect`, `findings`."""
    content = {"looked_at": looked_at, "suspect": suspects(found), "findings": found}
    return (json.dumps(content, indent=1) + "\n").encode()


def _of_one(row: Row, usual: str | None) -> list[tuple[Check, str]]:
    if row["problem"]:
        return [(Check.UNDECODABLE, row["problem"])]
    found = []
    if row["contrast"] < BLANK_CONTRAST:
        found.append((Check.BLANK, f"contrast {row['contrast']:.4f}"))
    if row["brightness"] < DARK_BRIGHTNESS:
        found.append((Check.TOO_DARK, f"brightness {row['brightness']:.3f}"))
    if row["contrast"] >= BLANK_CONTRAST and row["sharpness"] < BLURRED_SHARPNESS:
        found.append((Check.BLURRED, f"sharpness {row['sharpness']:.2f}"))
    if row.get("low_depth"):
        found.append((Check.LOW_DEPTH, row["low_depth"]))
    if row.get("reduced"):
        found.append((Check.REDUCED_PAGE, f"{row['width']} x {row['height']} pixels"))
    if usual and row["mode"] != usual:
        found.append((Check.WRONG_MODE, f"{row['mode']}, nearly all others are {usual}"))
    return found


def _usual_mode(rows: list[Row]) -> str | None:
    """Return the colour mode of at least 95 % of the images, if there is one."""
    modes = Counter(row["mode"] for row in rows if row["mode"])
    mode, count = modes.most_common(1)[0] if modes else ("", 0)
    return mode if count >= 0.95 * modes.total() and modes.total() > 1 else None


def _hashable(row: Row) -> bool:
    return bool(row["hash"]) and row["contrast"] >= HASHABLE_CONTRAST


def _near_duplicates(rows: list[Row]) -> list[Row]:
    """Return the later image of every pair that is nearly the same; its row names the earlier one."""
    rows = rows[:_MANY]  # pairs grow with the square
    if not rows:
        return []
    bits = np.array([np.frombuffer(bytes.fromhex(row["hash"]), np.uint8) for row in rows])
    twins: dict[int, list[int]] = defaultdict(list)
    for later in range(1, len(rows)):
        twins[later] = _close(bits[:later], bits[later])
    return [
        {
            "image_id": rows[later]["image_id"],
            "uri": without_permission(rows[later]["uri"]),
            "check": Check.NEAR_DUPLICATE.value,
            "twin": rows[earlier[0]]["image_id"],
            "detail": f"{'equals' if _same(rows, later, earlier[0]) else 'looks like'}"
            f" {rows[earlier[0]]['image_id']}",
        }
        for later, earlier in twins.items()
        if earlier
    ]


def _close(others: npt.NDArray[np.uint8], bits: npt.NDArray[np.uint8]) -> list[int]:
    different = np.bitwise_count(others ^ bits).sum(axis=1)
    return [int(at) for at in np.flatnonzero(different <= SAME_BITS)[:1]]


def _same(rows: list[Row], one: int, other: int) -> bool:
    # Two pages of a file are two images, however alike.
    same_file = rows[one]["sha256"] == rows[other]["sha256"]
    return bool(same_file and rows[one].get("page") == rows[other].get("page"))
