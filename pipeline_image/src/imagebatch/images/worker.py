"""A process that decodes images for its parent: bounded memory, bounded time, no way to write.

Frames both ways: one byte (`v`iew of what follows, which has no reply; `m`easure, `t`humbnail, `p`review; in
replies `j`SON, `b`ytes), four bytes of length, the content.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import struct
import sys
from typing import IO

HEADER = struct.Struct("!cI")
MOST_MEMORY = 3 * 2**30
MOST_SECONDS = 20


def read_frame(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Read the next frame; (b"", b"") at the end of the stream."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return b"", b""
    kind, size = HEADER.unpack(head)
    content = stream.read(size)
    return (kind, content) if len(content) == size else (b"", b"")


def write_frame(stream: IO[bytes], kind: bytes, content: bytes) -> None:
    """Send one frame."""
    stream.write(HEADER.pack(kind, len(content)) + content)
    stream.flush()


def main() -> None:
    """Answer requests until standard input ends."""
    from imagebatch_header import ImageError, View  # noqa: PLC0415 (with what follows)
    from PIL import Image  # noqa: PLC0415 (heavy, and only this process needs it)

    from imagebatch.images.measure import measure, preview, thumbnail  # noqa: PLC0415 (imports Pillow and NumPy, which only this process needs)

    Image.MAX_IMAGE_PIXELS = None  # the limit is measure.MOST_PIXELS, applied before decoding
    view = View()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not spoil the replies
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = io.BufferedReader(io.FileIO(sys.stdin.fileno()))
    while True:
        kind, data = read_frame(requests)
        if not kind:
            return
        if kind == b"v":
            view = View(**json.loads(data))
            continue
        signal.alarm(MOST_SECONDS)  # its default ends the process, also within a decoder
        if kind == b"m":
            write_frame(replies, b"j", json.dumps(measure(data, view)).encode())
        else:
            try:
                small = preview(data, view) if kind == b"p" else thumbnail(data, view)
            except (ImageError, MemoryError):
                small = b""
            write_frame(replies, b"b", small)
        signal.alarm(0)


if __name__ == "__main__":
    main()
