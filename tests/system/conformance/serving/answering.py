"""The archive's own modules, for servers of other makers: an image file in, a number per class out."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# The unpacked archive.
FOLDER = Path(os.environ["CONFORMANCE_MODEL"])


class Answering:
    """The model, loaded from `FOLDER`."""

    def __init__(self) -> None:
        import yaml  # noqa: PLC0415 (each server's environment has it; the linters' has not)

        sys.path.insert(0, str(FOLDER))
        from imagebatch_model import ImageModel, Settings  # noqa: PLC0415 (of the archive)

        config = yaml.safe_load((FOLDER / "model-config.yaml").read_text("utf-8"))
        self._model: Any = ImageModel(FOLDER, Settings.from_config(config))
        self._turn = threading.Lock()  # MLflow's server calls it from several threads, and it is not safe to
        self.labels: list[str] = self._model.labels
        self.digest: str = self._model.digest

    def probabilities(self, data: bytes) -> npt.NDArray[np.float32]:
        """Score one image file; raise what the archive's modules raise of a bad one."""
        with self._turn:
            return self._of(self._model.decode(data))

    def of_pixels(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Score pixels (images, 3, height, width) that somebody else has made; a row for each."""
        import torch  # noqa: PLC0415 (each server's environment has it; the linters' has not)

        with self._turn:
            return np.stack([self._of(torch.from_numpy(np.array(pixels))) for pixels in batch])

    def _of(self, pixels: Any) -> npt.NDArray[np.float32]:
        found = self._model.predict(self._model.infer(pixels), len(self.labels))
        by_label = dict(zip(found.labels, found.probabilities, strict=True))
        return np.array([by_label[label] for label in self.labels], np.float32)
