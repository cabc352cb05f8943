"""Processor time: that of processes which are still at work, too, and of their own children."""

from __future__ import annotations

import subprocess
import sys
import time

from imagebatch.observe.cpu import tree_cpu_seconds

# Works for half a second, in a child of a child, says so, and waits.
_GRANDCHILD = """
import time
while time.process_time() < 0.5:
    pass
print("done", flush=True)
input()
"""
_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_GRANDCHILD!r}])"


def test_a_worker_that_still_lives_is_counted_once() -> None:
    """Proves that a grandchild's time is seen while it lives, and not twice when it has ended."""
    before = tree_cpu_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "done\n"
        while_it_lives = tree_cpu_seconds() - before
        child.communicate("\n")
    after = tree_cpu_seconds() - before
    assert 0.45 < while_it_lives < 2
    assert while_it_lives <= after + 0.05 < 2.5


def test_the_own_time_is_counted() -> None:
    """Proves that a loop of this process shows."""
    before, begun = tree_cpu_seconds(), time.process_time()
    while time.process_time() < begun + 0.1:
        pass
    assert tree_cpu_seconds() - before >= 0.09
