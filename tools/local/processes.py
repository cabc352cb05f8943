"""Services that outlive the script which starts them, and end with everything they started.

Each service leads a session of its own; its pid, its start time and the machine's boot are recorded. What a
service starts stays in that session, also after its parent died: it is stopped when the session is empty. A
pid that meanwhile went to a stranger has another start time, and is left alone. Reads /proc: Linux only.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.paths import ROOT, VAR

RECORDS = VAR / "services"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """One line of /proc: start is in clock ticks since boot."""

    pid: int
    state: str
    session: int
    start: int


@dataclass(frozen=True)
class Record:
    """A service that was started."""

    name: str
    pid: int
    start: int
    boot: str
    fingerprint: str

    def save(self) -> None:
        """Write the record where `records()` finds it."""
        RECORDS.mkdir(parents=True, exist_ok=True)
        part = RECORDS / f".{self.name}"
        part.write_text(json.dumps(asdict(self)))
        part.replace(RECORDS / f"{self.name}.json")

    def forget(self) -> None:
        """Remove the record."""
        (RECORDS / f"{self.name}.json").unlink(missing_ok=True)


def records() -> dict[str, Record]:
    """Read the records of this stack, by service name."""
    found = [Record(**json.loads(path.read_text())) for path in sorted(RECORDS.glob("*.json"))]
    return {record.name: record for record in found}


def start(
    name: str, argv: list[str], *, environment: Mapping[str, str], folder: Path, fingerprint: str
) -> Record:
    """Start a service as the leader of a new session, its output in `log_file(name)`."""
    folder.mkdir(parents=True, exist_ok=True)
    log_file(name).parent.mkdir(parents=True, exist_ok=True)
    with log_file(name).open("wb") as log:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # it is meant to outlive this script, and Popen would complain
    seen = look(process.pid)
    record = Record(name, process.pid, seen.start if seen else 0, _boot(), fingerprint)
    record.save()
    return record


def log_file(name: str) -> Path:
    """Tell where a service's output goes."""
    return VAR / "logs" / f"{name}.log"


def alive(record: Record) -> bool:
    """Tell whether the very process that was recorded still runs."""
    seen = look(record.pid)
    return bool(seen and seen.state != "Z" and seen.start == record.start and record.boot == _boot())


def members(record: Record) -> list[int]:
    """List the processes that belong to a service: its whole session, orphans included."""
    if record.boot != _boot():
        return []
    leader = look(record.pid)
    if leader and leader.start != record.start:
        return []  # the pid is a stranger's now, and so is its session
    mine = [each for each in _processes() if each.session == record.pid and each.state != "Z"]
    if leader is None:
        # Nobody vouches for the session's number any more: its processes must stand in our folders.
        mine = [each for each in mine if _ours(each.pid)]
    return [each.pid for each in mine]


def stop(services: Iterable[Record], *, grace: float = 6.0) -> list[int]:
    """Stop services and everything in their sessions.

    Args:
        services: what to stop, all at once.
        grace: seconds after SIGTERM to the leaders (a scheduler would wait for its tasks, however long);
            then SIGTERM to all that is left, and SIGKILL 5 seconds later.

    Returns:
        Processes that outlived SIGKILL: none, unless the kernel holds them.
    """
    services = list(services)
    for record in services:
        if alive(record):
            _signal([record.pid], signal.SIGTERM)
    left = _wait_until_gone(services, grace)
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0), (signal.SIGKILL, 5.0)):
        if not left:
            break
        _signal(left, number)
        left = _wait_until_gone(services, seconds)
    for record in services:
        if not members(record):
            record.forget()
    return left


def look(pid: int) -> Process | None:
    """Read one process from /proc, None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    # The command's name stands in parentheses and may contain anything, also parentheses.
    rest = text[text.rindex(")") + 2 :].split()
    return Process(pid=pid, state=rest[0], session=int(rest[3]), start=int(rest[19]))


def _wait_until_gone(services: list[Record], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while True:
        left = [pid for record in services for pid in members(record)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _processes() -> list[Process]:
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names are all that is wanted
    return [each for each in found if each]


def _ours(pid: int) -> bool:
    try:
        folder = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return folder.is_relative_to(VAR) or folder.is_relative_to(ROOT)


def _boot() -> str:
    return BOOT.read_text().strip()
