import os
import subprocess
import sys

import pytest

from benchmarks.peers import stopwatch

BURN = "import time\nwhile time.process_time() < 0.3: pass\ninput()"


def test_cpu_of_a_session_of_its_own_is_counted_by_its_mark() -> None:
    """A server that leaves its parent's session is counted; a stranger with another mark is not."""
    started = []
    try:
        for mark in ("mine-1", "theirs-1"):
            process = subprocess.Popen(
                [sys.executable, "-c", BURN.replace("input()", "print(flush=True); input()")],
                env=os.environ | {stopwatch.MARK: mark},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            started.append(process)
            process.stdout.readline()
        assert list(stopwatch.marked("mine-1")) == [started[0].pid]
        assert 0.25 <= stopwatch.cpu_seconds("mine-1") < 5
        assert stopwatch.cpu_seconds("nobody") == 0
    finally:
        for process in started:
            process.communicate()


def test_a_child_that_has_ended_is_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time spent by a worker that its parent has waited for does not vanish."""
    parent = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        f"{BURN.replace('input()', 'pass')!r}]); print(flush=True); input()"
    )
    monkeypatch.setenv(stopwatch.MARK, "parent-1")
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    process.stdout.readline()
    try:
        assert stopwatch.cpu_seconds("parent-1") >= 0.25
    finally:
        process.communicate()
