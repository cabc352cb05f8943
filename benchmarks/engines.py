"""Do the engines agree on every photograph of the demo? Run in the environment of `handlers/`.

Prints images, top-1 agreement and the largest difference of a logit; exits 1 if they disagree on an image.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from imagebatch_engines import load_engine
from imagebatch_pixels import decode

ROOT = Path(__file__).parents[1]
ARCHIVE = ROOT / "model_store" / "solar-cells.mar"
IMAGES = ROOT / "var" / "data" / "solar-cells" / "images"


def main() -> int:
    """Compare OpenVINO with torch."""
    paths = sorted(IMAGES.glob("*.png"))
    if not paths or not ARCHIVE.exists():
        print("no archive or photographs: run `make demo` first", file=sys.stderr)
        return 78
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
        openvino, torch = (load_engine(name, Path(folder)) for name in ("openvino", "torch"))
        agreed, worst = 0, 0.0
        for path in paths:
            pixels = decode(path.read_bytes())
            one, other = openvino.infer(pixels), torch.infer(pixels)
            agreed += int(one.argmax() == other.argmax())
            worst = max(worst, float(np.abs(one - other).max()))
    print(f"openvino and torch agree on {agreed} of {len(paths)} images, logits within {worst:.2g}")
    return 0 if agreed == len(paths) else 1


if __name__ == "__main__":
    sys.exit(main())
