"""Answers of archives to the test images, as served: from file bytes to logits, one image at a time."""

import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from imagebatch_training.archive.loaded import load_archive
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.images.data import DataSet
from imagebatch_training.progress import progress
from imagebatch_training.release.gates import Answers, Truth


def answer_all(mars: list[Path], data: DataSet) -> tuple[list[Answers], Truth]:
    """Ask archives about the test images of the block split.

    Each image is asked of all in turn, so that what else the machine does slows them alike.

    Args:
        mars: Archives with a softmax head.
        data: Images, labels and splits.

    Returns:
        Answers of each, in order, and what is true.

    Raises:
        ConfigurationError: An archive cannot be loaded, or has another head.
        DataError: No image is held out.
    """
    chosen = [data.labels.examples[at] for at in data.labels.members("block", "test")]
    if not chosen:
        raise DataError("no image is held out: raise data.test")
    truth = Truth(classes=[e.label for e in chosen], blocks=np.array([e.block for e in chosen]))
    files = [example.path(data.images) for example in chosen]
    with ExitStack() as stack:
        models = [_load(mar, Path(stack.enter_context(tempfile.TemporaryDirectory()))) for mar in mars]
        logits: list[list[Any]] = [[] for _ in models]
        seconds: list[list[float]] = [[] for _ in models]
        for model in models:
            _ask(model, files[0])  # the first image of a process pays for loading
        for number, file in enumerate(progress(files, "asking about the test images")):
            order = list(range(len(models)))
            for at in order if number % 2 else reversed(order):
                begun = time.perf_counter()
                found = _ask(models[at], file)
                seconds[at].append(time.perf_counter() - begun)
                logits[at].append(found)
        answers = [
            Answers(
                logits=np.stack(logits[at]).astype(np.float64),
                labels=list(model.labels),
                seconds=np.array(seconds[at]),
            )
            for at, model in enumerate(models)
        ]
    return answers, truth


def _ask(model: Any, file: Path) -> Any:
    return model.infer(model.decode(file.read_bytes()))


def _load(mar: Path, folder: Path) -> Any:
    try:
        with zipfile.ZipFile(mar) as archive:
            archive.extractall(folder)
        model = load_archive(folder)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{mar} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    kind = model.describe().get("head", "softmax")
    if kind != "softmax":
        raise ConfigurationError(f"{mar} has a {kind} head: the gates compare classes of a softmax")
    return model
