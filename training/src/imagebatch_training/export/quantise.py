"""Quantisation to 8 bits after training, by NNCF. This module alone imports it: it costs a second."""

import logging
from pathlib import Path

import nncf  # type: ignore[import-untyped]  # its own annotations are incomplete
import openvino as ov  # type: ignore[import-untyped]  # ships no type marker

from imagebatch_training.export.calibration import Calibration


def quantise(path: Path, calibration: Calibration) -> ov.Model:
    """Quantise weights and activations to 8 bits.

    Args:
        path: The graph in float32, uint8 (1, 3, crop, crop) to logits.
        calibration: Its `statistics` images set the ranges.

    Returns:
        The quantised graph. Its classifier stays in float32: it is the smallest layer, and `refit` fits it.
    """
    nncf.set_log_level(logging.ERROR)
    images = list(calibration.images(calibration.statistics))
    quantised: ov.Model = nncf.quantize(
        ov.Core().read_model(path),
        nncf.Dataset(images),
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(types=["MatMul"]),
    )
    return quantised
