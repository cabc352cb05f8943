"""A fine-tune that was killed goes on where it was, and ends with the very weights of one that was not."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from imagebatch_training.fit.checkpoint import read_checkpoint, write_checkpoint
from imagebatch_training.fit.finetune import FineTuneFit

from tests.training.fit.patterns import LONG, SETTINGS, tune_long
from tests.training.shapes import REPOSITORY


def same(one: FineTuneFit, other: FineTuneFit) -> bool:
    """The same history, the same best epoch, the same weights to the last bit."""
    states = one.head.state_dict(), other.head.state_dict()
    equal = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return equal and (one.best, one.history) == (other.best, other.history)


def killed_once_it_has(checkpoint: Path) -> None:
    """Start a fine-tune in a process of its own and kill it as soon as the file is there."""
    command = [sys.executable, "-m", "tests.training.fit.patterns", str(checkpoint)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        while not checkpoint.is_file():
            assert process.poll() is None, "it ended without a checkpoint"
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_killed_fine_tune_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    """By kill -9 after an epoch: order, views, dropout, momentum, schedule and mean go on as they were."""
    checkpoint = tmp_path / "checkpoint.pt"
    killed_once_it_has(checkpoint)
    state = read_checkpoint(checkpoint)
    assert state is not None
    assert len(state["trials"]) == 1
    assert 1 <= len(state["trials"][0]) < LONG.epochs
    assert same(tune_long(checkpoint), tune_long())


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_it_goes_on_from_any_epoch_of_any_rate(tmp_path: Path, epochs: int) -> None:
    """Also where a rate had just ended, and where all had: then nothing is trained again."""
    checkpoint, copies = tmp_path / "checkpoint.pt", []
    settings = replace(SETTINGS, averaging=0.9)

    def keep(path: Path, state: dict[str, object]) -> None:
        write_checkpoint(path, state)
        copies.append(path.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagebatch_training.fit.finetune.write_checkpoint", keep)
        whole = tune_long(checkpoint, settings)
    assert len(copies) == 4
    checkpoint.write_bytes(copies[epochs])
    assert same(tune_long(checkpoint, settings), whole)


def test_a_damaged_checkpoint_costs_its_epochs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file, or no checkpoint at all: training begins anew, and says why."""
    told: list[str] = []
    monkeypatch.setattr(
        "imagebatch_training.fit.checkpoint.log.warning", lambda text, *values: told.append(text % values)
    )
    checkpoint = tmp_path / "checkpoint.pt"
    whole = tune_long(checkpoint, SETTINGS)
    assert not told
    for count, content in enumerate((checkpoint.read_bytes()[:1000], b"", b"not a checkpoint"), start=1):
        checkpoint.write_bytes(content)
        assert same(tune_long(checkpoint, SETTINGS), whole)
        assert len(told) == count
        assert "cannot be read and is made again" in told[-1]


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """A pickle that calls something is a damaged file; what it would have done is not done."""

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"trials": Evil()}, tmp_path / "checkpoint.pt")
    assert read_checkpoint(tmp_path / "checkpoint.pt") is None
    assert not (tmp_path / "made").exists()
