"""A DataLoader and eager torch, as most would write it. Input and output are those of `lib/client.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from models import Eager
from PIL import Image
from stopwatch import Stopwatch
from torch.utils.data import DataLoader, Dataset


class Photographs(Dataset[tuple[torch.Tensor, str]]):
    """Files, decoded and transformed."""

    def __init__(self, paths: list[str], transform: Any) -> None:
        self._paths = [Path(path) for path in paths]
        self._transform = transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        path = self._paths[index]
        return self._transform(Image.open(path).convert("RGB")), path.name


def main() -> int:
    """Score all photographs."""
    asked: dict[str, Any] = json.load(sys.stdin)
    threads = torch.get_num_threads()
    model = Eager()
    torch.set_num_threads(threads)  # as torch chooses: nobody touches it in such a script
    score(model, asked["images"][: asked["warm"]])
    watch = Stopwatch()
    answers = score(model, asked["images"])
    print(json.dumps({"images": len(answers), **watch.read()}))
    Path(asked["answers"]).write_text(json.dumps(answers), encoding="utf-8")
    return 0


def score(model: Eager, paths: list[str]) -> dict[str, Any]:
    """Score photographs in batches of 32, decoded by two worker processes."""
    answers: dict[str, Any] = {}
    for batch, names in DataLoader(Photographs(paths, model.transform), batch_size=32, num_workers=2):
        answers |= zip(names, model.classify(batch), strict=True)
    return answers


if __name__ == "__main__":
    sys.exit(main())
