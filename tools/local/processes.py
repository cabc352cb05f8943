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
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tools.paths import ROOT, VAR

RECORDS = VAR / "services"
BOOT = Path("/proc/sys/kernel/random/boot_id")
LOG_BYTES = 10_000_000  # of a log, beyond which it is kept aside and begun anew
LOGS_KEPT = 3  # older ones beside it
# Waits for its record to be written before it becomes the service: no process is ever without one.
_RECORDED = 'read -r go && exec "$@" </dev/null'


@dataclass(frozen=True)
class Process:
    """One line of /proc: start is in clock ticks since boot."""

    pid: int
    state: str
    session: int
    start: int


@dataclass(frozen=True)
class Record:
    """A service that was started; it stays when the service has died, and until somebody stops it.

    Attributes:
        name: of the service.
        pid: of the leader of its session.
        start: of that process, in clock ticks since boot.
        boot: which boot of the machine that was.
        fingerprint: digest of what it was started with.
        stop_signal: number of the signal that asks it to end.
        base: others need it, so it is stopped after them.
        ports: on which it listens.
        since: when it was started, in seconds since 1970.
        restarts: how often it was started again after a death.
        died: how the process before this one ended, and when; empty if none did.
        waits: why no process of it runs now; empty while one should.
    """

    name: str
    pid: int
    start: int
    boot: str
    fingerprint: str
    stop_signal: int = signal.SIGTERM
    base: bool = False
    ports: tuple[int, ...] = ()
    since: float = 0.0
    restarts: int = 0
    died: str = ""
    waits: str = ""

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
    """Read the records of this stack, by service name; one that a power cut has torn is none."""
    known = {each.name for each in fields(Record)}
    found = {}
    for path in sorted(RECORDS.glob("*.json")):
        try:
            read = {key: value for key, value in json.loads(path.read_text()).items() if key in known}
            record = Record(**read | {"ports": tuple(read.get("ports", ()))})
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        found[record.name] = record
    return found


def start(
    name: str,
    argv: list[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    fingerprint: str,
    **more: Any,
) -> tuple[Record, "subprocess.Popen[bytes]"]:
    """Start a service as the leader of a new session, its output at the end of `log_file(name)`.

    Args:
        name: of its record and its log.
        argv: program and arguments.
        environment: all its variables.
        folder: where it runs; made if it is missing.
        fingerprint: digest of what it is started with.
        **more: further fields of its record.

    Returns:
        Its record, which is written before the program begins, and the process.

    Raises:
        OSError: the log, the record or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_file(name).parent.mkdir(parents=True, exist_ok=True)
    with log_file(name).open("ab") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _RECORDED, "sh", *argv],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    seen = look(process.pid)
    record = Record(
        name, process.pid, seen.start if seen else 0, _boot(), fingerprint, since=time.time(), **more
    )
    with process.stdin or nullcontext():
        record.save()
        if process.stdin:
            process.stdin.write(b"\n")
    return record, process


def log_file(name: str) -> Path:
    """Tell where a service's output goes."""
    return VAR / "logs" / f"{name}.log"


def rotate(log: Path) -> None:
    """Keep a log aside that has become too long, as `log.1`, and begin it anew.

    Its writers go on without noticing: they append. What they write between the last look and the cut, some
    microseconds, is lost.

    Args:
        log: the file; the oldest beside it, `log.3`, is dropped.

    Raises:
        OSError: no room, or no right to write there.
    """
    if not log.exists() or log.stat().st_size <= LOG_BYTES:
        return
    aside = [log.with_name(f"{log.name}.{number}") for number in range(1, LOGS_KEPT + 1)]
    for older, newer in zip(reversed(aside), reversed(aside[:-1]), strict=False):
        if newer.exists():
            newer.replace(older)
    with log.open("r+b") as source, aside[0].open("wb") as target:
        while piece := source.read(1 << 20):
            target.write(piece)
        source.truncate(0)


def alive(record: Record) -> bool:
    """Tell whether the very process that was recorded still runs."""
    seen = look(record.pid)
    return bool(seen and seen.state != "Z" and seen.start == record.start and of_this_boot(record))


def of_this_boot(record: Record) -> bool:
    """Tell whether the machine was not started anew since."""
    return record.boot == _boot()


def members(record: Record) -> list[int]:
    """List the processes that belong to a service: its whole session, orphans included."""
    if not of_this_boot(record):
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
    """Stop services and everything in their sessions; what others need after those others.

    Args:
        services: what to stop.
        grace: seconds that the leaders have once they are asked (a scheduler would wait for its tasks,
            however long); then SIGTERM to all that is left, and SIGKILL 5 seconds later.

    Returns:
        Processes that outlived SIGKILL: none, unless the kernel holds them.
    """
    services = list(services)
    left: list[int] = []
    for base in (False, True):
        left += _stop([record for record in services if record.base == base], grace)
    for record in services:
        if not members(record):
            record.forget()
    return left


def end_orphans(record: Record) -> int:
    """End what a service that has died has left behind.

    Returns:
        How many processes that were.

    Raises:
        OSError: some outlive SIGKILL: the kernel holds them.
    """
    found = members(record)
    if left := _end(found, [record]):
        raise OSError(f"processes {left} of {record.name} survive SIGKILL: the kernel holds them")
    return len(found)


def _stop(services: list[Record], grace: float) -> list[int]:
    asked = [record for record in services if alive(record)]
    for record in asked:
        _signal([record.pid], record.stop_signal)
    deadline = time.monotonic() + grace
    while any(alive(record) for record in asked) and time.monotonic() < deadline:
        time.sleep(0.05)
    return _end([pid for record in services for pid in members(record)], services)


def _end(left: list[int], services: list[Record]) -> list[int]:
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0), (signal.SIGKILL, 5.0)):
        if not left:
            break
        _signal(left, number)
        left = _wait_until_gone(services, seconds)
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
        time.sleep(0.05)


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
