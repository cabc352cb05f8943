#!/usr/bin/env bash
# Finding: Pillow makes the wrong pixels of a grey PNG transparent where the file has 2 or 4 bits per sample. It scales
# the samples to 8 bits (a level of 3 of 3 becomes 255) and keeps the transparent level of the tRNS chunk as it is
# stored (3), so the two no longer compare. The level that is transparent stays opaque; of 4 bits none is right but 0.
# With 1 and 8 bits it is right. Nothing is raised or warned of. The decoder of libpng (through imagecodecs) is right.
#
# Seen with Pillow 13.0.0 and imagecodecs 2026.3.6 (Python 3.11, Linux x86_64); the output is below. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.3.5 2>/dev/null

cat > look.py <<'PY'
import io
import struct
import zlib

import imagecodecs
import numpy as np
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, clear: int) -> bytes:
    """One row that holds every level of this depth once; `clear` is the transparent one."""
    levels = 1 << depth
    width = max(levels, 8 // depth)
    row = 0
    for x in range(width):
        row = row << depth | x % levels
    size = struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" + row.to_bytes(width * depth // 8, "big"))
    parts = ((b"IHDR", size), (b"tRNS", struct.pack(">H", clear)), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


for depth in (1, 2, 4, 8):
    wrong = {"Pillow": 0, "libpng": 0}
    for clear in range(1 << depth):
        data = png(depth, clear)
        found = {
            "Pillow": np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[0, :, 3],
            "libpng": imagecodecs.png_decode(data)[0, :, -1],
        }
        right = [0 if x % (1 << depth) == clear else 255 for x in range(len(found["Pillow"]))]
        for name, alpha in found.items():
            wrong[name] += alpha.tolist() != right
    print(f"{depth} bits: of {1 << depth} transparent levels wrong: {wrong}")
PY
cat > expected <<'TXT'
1 bits: of 2 transparent levels wrong: {'Pillow': 0, 'libpng': 0}
2 bits: of 4 transparent levels wrong: {'Pillow': 3, 'libpng': 0}
4 bits: of 16 transparent levels wrong: {'Pillow': 15, 'libpng': 0}
8 bits: of 256 transparent levels wrong: {'Pillow': 0, 'libpng': 0}
TXT
environment/bin/python look.py | tee seen
diff expected seen
