import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools.local import processes

# A service that ignores SIGTERM in a child of another process group, as Airflow's tasks are.
FAMILY = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", stubborn], process_group=0, stdout=subprocess.PIPE)
child.stdout.readline()
open(sys.argv[1], "w").write(f"{child.pid}\\n")
time.sleep(300)
"""


def start(name: str, folder: Path, code: str, *arguments: str) -> processes.Record:
    """Start a service made of Python code."""
    argv = [sys.executable, "-c", code, *arguments]
    record, process = processes.start(name, argv, environment=os.environ, folder=folder, fingerprint="1")
    process.returncode = 0  # the tests wait for it by its number
    return record


def wait_for(path: Path) -> int:
    """Wait until a process has written a pid."""
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())


def running(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    seen = processes.look(pid)
    return bool(seen and seen.state != "Z")


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A running service and the pid of its stubborn child; whatever a failed test leaves is killed."""
    monkeypatch.setattr(processes, "VAR", tmp_path)
    monkeypatch.setattr(processes, "RECORDS", tmp_path / "services")
    record = start("family", tmp_path / "cwd", FAMILY, str(tmp_path / "child"))
    child = wait_for(tmp_path / "child")
    yield record, child
    for pid in (record.pid, child):
        if running(pid):
            os.kill(pid, signal.SIGKILL)


def test_stop_ends_a_service_and_its_stubborn_children(family: Any) -> None:
    """A child in another group that ignores SIGTERM is gone too, and the record with it."""
    record, child = family
    assert processes.records() == {"family": record}
    assert processes.stop([record], grace=0.5) == []
    assert not running(record.pid)
    assert not running(child)
    assert processes.records() == {}


def test_stop_finds_orphans_of_a_service_that_was_killed(family: Any) -> None:
    """After SIGKILL on the service alone its child is still known as its own, and ended."""
    record, child = family
    os.kill(record.pid, signal.SIGKILL)
    os.waitpid(record.pid, 0)
    assert not processes.alive(record)
    assert processes.members(record) == [child]
    assert processes.stop([record], grace=0.5) == []
    assert not running(child)


@pytest.mark.parametrize("change", [{"start": -1}, {"boot": "another boot"}])
def test_a_strangers_process_is_never_touched(family: Any, change: dict[str, Any]) -> None:
    """A recorded pid that now belongs to somebody else, or comes from before a reboot, is left alone."""
    record, child = family
    stale = replace(record, **change)
    assert not processes.alive(stale)
    assert processes.stop([stale], grace=0.2) == []
    assert running(record.pid)
    assert running(child)


def test_orphans_outside_our_folders_are_strangers(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody left to vouch for a session's number, processes elsewhere on the machine are not ours."""
    record, child = family
    os.kill(record.pid, signal.SIGKILL)
    os.waitpid(record.pid, 0)
    for name in ("VAR", "ROOT"):
        monkeypatch.setattr(processes, name, Path("/nonexistent"))
    assert processes.members(record) == []
    assert running(child)


def test_a_name_with_parentheses_is_read(tmp_path: Path) -> None:
    """The kernel prints a process's name unescaped; the fields behind it are still found."""
    program = tmp_path / "a) b (c"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"], start_new_session=True) as sleeper:
        seen = processes.look(sleeper.pid)
        sleeper.kill()
    assert seen is not None
    assert seen.session == sleeper.pid
    assert seen.start > 0
