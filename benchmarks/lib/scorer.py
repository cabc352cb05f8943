"""`imagebatch score`, files to parts, with its start-up apart: run in the environment of pipeline_image/.

Input and output are those of `client.py`; `flags` are the command's, of a run that `imagebatch preprocess`
has prepared in the folder `run`; `warm` those of a small one that is scored before the clock starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from imagebatch import cli

from benchmarks.peers.stopwatch import Stopwatch


def main() -> int:
    """Time the stage, then read its parts."""
    asked: dict[str, Any] = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        code = cli.call(["score", *asked["warm"]])
        watch = Stopwatch()
        code = code or cli.call(["score", *asked["flags"]])
    measured = watch.read()
    if code:
        return code
    answers = _answers(Path(asked["run"]))
    Path(asked["answers"]).write_text(json.dumps(answers), encoding="utf-8")
    print(json.dumps({"images": len(answers), **measured}), flush=True)
    os._exit(0)  # as the command itself ends, see imagebatch.cli


def _answers(run: Path) -> dict[str, tuple[list[str], list[float]]]:
    """Every predicted row of the parts that count."""
    answers = {}
    for done in sorted(run.glob("scores/*/_DONE.json")):
        for part in json.loads(done.read_text("utf-8"))["parts"]:
            for row in pq.read_table(run / part["path"]).to_pylist():
                # The parts hold float32, the handler's reply its shortest decimal form.
                shortest = [float(str(np.float32(value))) for value in row["probabilities"]]
                answers[row["image_id"]] = (row["labels"], shortest)
    return answers


if __name__ == "__main__":
    sys.exit(main())
