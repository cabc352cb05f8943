"""Ray Data with an actor pool, as its documentation shows batch inference.

Input and output are those of `lib/client.py`. The clock starts with the first answers: starting the actors is
start-up, and stays apart.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import cluster
import numpy as np
import ray
import torch
from models import Eager, Ours
from PIL import Image
from stopwatch import Stopwatch

ACTORS, BATCH = 2, 32


class Classify:
    """The model of an actor: transformed pixels in, answers out."""

    def __init__(self) -> None:
        self.model = Eager()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score one batch."""
        answers = self.model.classify(torch.from_numpy(np.stack(batch["pixels"])))
        return {"path": batch["path"], "answer": [json.dumps(answer) for answer in answers]}


class ClassifyFiles:
    """The same with our engine and pixels: files in."""

    def __init__(self) -> None:
        self.model = Ours()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score one batch."""
        answers = self.model.predict(list(batch["bytes"]))
        return {"path": batch["path"], "answer": [json.dumps(answer) for answer in answers]}


def preprocess(row: dict[str, Any], transform: Any) -> dict[str, Any]:
    """Transform one decoded image."""
    return {"pixels": transform(Image.fromarray(row["image"])).numpy(), "path": row["path"]}


def main() -> int:
    """Score all photographs."""
    asked: dict[str, Any] = json.load(sys.stdin)
    cluster.start()
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = (as_documented if os.environ["PEER_KIND"] == "eager" else with_ours)(asked["images"])
    answers: dict[str, Any] = {}
    watch, before, begun = None, 0, 0.0
    for batch in data.iter_batches(batch_size=None):
        answers |= {
            Path(path).name: json.loads(answer)
            for path, answer in zip(batch["path"], batch["answer"], strict=True)
        }
        if watch is None:
            begun, before = time.perf_counter(), len(answers)
            watch = Stopwatch()  # takes a while, in which Ray goes on
    if watch is None:
        raise SystemExit("Ray Data gave no answers")
    measured = watch.read() | {"seconds": time.perf_counter() - begun}
    print(json.dumps({"images": len(answers) - before, **measured}))
    Path(asked["answers"]).write_text(json.dumps(answers), encoding="utf-8")
    return 0


def as_documented(images: list[str]) -> Any:
    """Read, transform, classify. Half a core per actor: with whole ones the reading tasks starve."""
    found = ray.data.read_images(images, include_paths=True, mode="RGB")
    pool = ray.data.ActorPoolStrategy(size=ACTORS)
    transformed = found.map(preprocess, fn_kwargs={"transform": Eager().transform})
    return transformed.map_batches(Classify, compute=pool, batch_size=BATCH, num_cpus=0.5)


def with_ours(images: list[str]) -> Any:
    """Read the files and hand them over as they are."""
    found = ray.data.read_binary_files(images, include_paths=True)
    pool = ray.data.ActorPoolStrategy(size=ACTORS)
    return found.map_batches(ClassifyFiles, compute=pool, batch_size=BATCH, num_cpus=0.5)


if __name__ == "__main__":
    sys.exit(main())
