"""Images and an unpacked archive for a chaos without the demo; run by an interpreter that can draw them.

`python -m tests.system.chaos.material FOLDER COUNT`
"""

import sys
from pathlib import Path

from imagebatch.conformance.pictures import drawn

from tests.support.handler_archives import write_archive

if __name__ == "__main__":
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    write_archive(folder)  # into folder/unpacked
    (folder / "photographs").mkdir()
    for number, image in enumerate(drawn(count)):
        (folder / "photographs" / f"{number:03}.jpg").write_bytes(image)
