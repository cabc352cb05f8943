"""The ceiling: the archive's own modules in one process per core, files to answers, no HTTP, no parts.

Run in the environment of handlers/; input and output are those of `client.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.peers.models import open_model
from benchmarks.peers.stopwatch import Stopwatch

PROCESSES = 2
TAKEN = 32  # images that a process takes at once: as even a share as a pack


def main() -> int:
    """Start the processes, time what they do together, merge their answers."""
    asked: dict[str, Any] = json.load(sys.stdin)
    context = multiprocessing.get_context("spawn")
    taken, together = context.Value("l", 0), context.Barrier(PROCESSES + 1)
    parts = [Path(f"{asked['answers']}.{number}") for number in range(PROCESSES)]
    processes = [
        context.Process(target=work, args=(asked["images"], asked["warm"], part, taken, together))
        for part in parts
    ]
    for process in processes:
        process.start()
    together.wait()  # loaded and warm
    for image in asked["images"]:
        Path(image).read_bytes()  # into the page cache, as for everyone: the disk is not what is compared
    watch = Stopwatch()  # looks through /proc first, which takes a while
    together.wait()  # off
    together.wait()  # done
    print(json.dumps({"images": len(asked["images"]), **watch.read()}))
    together.wait()  # a process that has ended could not be counted
    for process in processes:
        process.join()
    answers = {name: answer for part in parts for name, answer in json.loads(part.read_text("utf-8")).items()}
    Path(asked["answers"]).write_text(json.dumps(answers), encoding="utf-8")
    return 0


def work(images: Sequence[str], warm: int, part: Path, taken: Synchronized[int], together: Barrier) -> None:
    """Score whatever the other process has not taken."""
    model = open_model()
    for image in images[:warm]:
        model.predict([Path(image).read_bytes()])
    answers = {}
    together.wait()
    together.wait()
    while True:
        with taken.get_lock():
            start = taken.value
            taken.value += TAKEN
        if start >= len(images):
            break
        for path in map(Path, images[start : start + TAKEN]):
            (answers[path.name],) = model.predict([path.read_bytes()])
    part.write_text(json.dumps(answers), encoding="utf-8")
    together.wait()
    together.wait()


if __name__ == "__main__":
    sys.exit(main())
