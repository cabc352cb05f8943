#!/usr/bin/env bash
# Finding: a JPEG decoded at n/8 of its size (libjpeg's scaling: Pillow's `draft`, simplejpeg's `min_height`/`min_width`) has
# its size rounded UP: of 561 rows a quarter is 140.25, and 141 come. The last one lies for the most part beyond the picture.
# Resizing the 141 rows as if they were all picture therefore shrinks it by half a percent and shifts it, more towards the end,
# and a sharp picture differs more than the scaling itself makes it: here the mean difference from the whole picture resized
# falls to a tenth when the resize is told what the rows cover (`box` of Pillow's `resize`, scales in torch).
#
# Seen with Pillow 13.0.0 and simplejpeg 1.9.0 (Python 3.11, Linux x86_64); the output is below. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check pillow==13.0.0 simplejpeg==1.9.0 numpy==2.4.6

cat > scaled.py <<'PY'
import io

import numpy as np
import simplejpeg
from PIL import Image

SIDE, TO = 561, 64
y, x = np.mgrid[:SIDE, :SIDE]
waves = 127 + 100 * np.sin(x / 9.0) * np.sin(y / 7.0)
whole = Image.fromarray(waves.round().astype(np.uint8))
file = io.BytesIO()
whole.save(file, "JPEG", quality=95)
whole = Image.open(io.BytesIO(file.getvalue()))
wanted = np.asarray(whole.resize((TO, TO), Image.Resampling.BILINEAR), np.float64)

drafted = Image.open(io.BytesIO(file.getvalue()))
drafted.draft("L", (SIDE // 4, SIDE // 4))
quick = simplejpeg.decode_jpeg(file.getvalue(), "GRAY", min_height=SIDE // 4, min_width=SIDE // 4)
print("rows that a quarter of 561 has:", SIDE / 4, "Pillow gives", drafted.height, "simplejpeg gives", quick.shape[0])
print("the same pixels:", np.array_equal(np.asarray(drafted), quick[:, :, 0]))
covered = (0, 0, SIDE / 4, SIDE / 4)


def apart(**box: object) -> float:
    resized = drafted.resize((TO, TO), Image.Resampling.BILINEAR, **box)
    return float(np.abs(np.asarray(resized, np.float64) - wanted).mean())


print(f"mean difference, resized as it comes: {apart():.1f} of 255")
print(f"mean difference, told what it covers: {apart(box=covered):.1f} of 255")
PY
environment/bin/python scaled.py | tee seen
diff - seen <<'TXT'
rows that a quarter of 561 has: 140.25 Pillow gives 141 simplejpeg gives 141
the same pixels: True
mean difference, resized as it comes: 10.1 of 255
mean difference, told what it covers: 1.0 of 255
TXT
