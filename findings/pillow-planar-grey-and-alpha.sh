#!/usr/bin/env bash
# Finding: Pillow reads a TIFF of grey and alpha wrong, without a word, where the two lie in planes of their own
# (PlanarConfiguration 2, valid TIFF 6.0) and are compressed: the grey is right, and every pixel's alpha is 0, so the
# whole picture is transparent, and white or black once it is laid on something. Uncompressed, the same file is refused
# with "unknown raw mode". With the samples side by side (PlanarConfiguration 1) every compression is right. tifffile
# reads all of them right.
#
# Seen with Pillow 13.0.0 and tifffile 2026.3.3 (Python 3.11, Linux x86_64); the output is below. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check \
    pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.3.5 2>/dev/null

cat > look.py <<'PY'
import io

import numpy as np
import tifffile
from PIL import Image

y, x = np.mgrid[0:64, 0:48]
grey, alpha = (x * 5).astype(np.uint8), (y * 4).astype(np.uint8)
for planes in ("contig", "separate"):
    for compression in (None, "zlib", "lzw", "packbits"):
        samples = np.stack([grey, alpha], 0 if planes == "separate" else -1)
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            samples,
            photometric="minisblack",
            planarconfig=planes,
            extrasamples=["unassalpha"],
            compression=compression,
        )
        assert np.array_equal(tifffile.imread(io.BytesIO(file.getvalue())), samples)
        try:
            image = Image.open(io.BytesIO(file.getvalue()))
            bands = [np.asarray(band) for band in image.split()]
        except ValueError as error:
            print(planes, compression, "refused:", error)
            continue
        values = sorted(set(bands[1].ravel().tolist()))
        said = "right" if np.array_equal(bands[1], alpha) else f"wrong, {values}"
        print(planes, compression, image.mode, "grey", np.array_equal(bands[0], grey), "alpha", said)
PY
cat > expected <<'TXT'
contig None LA grey True alpha right
contig zlib LA grey True alpha right
contig lzw LA grey True alpha right
contig packbits LA grey True alpha right
separate None refused: unknown raw mode for given image mode
separate zlib LA grey True alpha wrong, [0]
separate lzw LA grey True alpha wrong, [0]
separate packbits LA grey True alpha wrong, [0]
TXT
environment/bin/python look.py | tee seen
diff expected seen
