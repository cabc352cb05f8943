"""Keep the stack's services alive: `make up` begins this program, `make down` ends it before the services.

    python3.11 -m tools.local.supervisor

What is wanted it reads once from a file that `hand_over` writes, and removes that at once, for variables may
hold secrets. SIGHUP tells of another one. Services that run as they are wanted are kept, also those that
another supervisor has started: when this one is killed they live on, and the next `make up` finds them by
their records (tools/local/processes.py). SIGTERM ends it and leaves the services alone.

A service that has died is started again after a second, then after two, and so on up to half a minute; one
that lived for a minute begins with one second again. What it has left behind, such as TorchServe's Java and
its workers, is ended before. Airflow's scheduler is also started anew when it lives without a heartbeat: one
that has lost its database waits for its tasks, however long, and does nothing else.

Why no library does this: docs/adr/0005-a-supervisor-of-our-own.md.
"""

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path

from tools.local import postgres, processes
from tools.local.processes import Record
from tools.loopback import ask
from tools.paths import ROOT, VAR, fail, say, write_private

NAME = "supervisor"
LONGEST = 30.0  # seconds between two attempts
SETTLED = 60.0  # seconds of life after which a death counts as the first
ENDING = 5.0  # seconds for the last threads of a dead process
LOOK = 1.0  # seconds between two looks at services that another supervisor has started
PULSE = 5.0  # seconds between two looks at heartbeats
SILENCE = 30.0  # seconds without one, after which Airflow too takes a scheduler for dead
SILENT_LOOKS = 3  # so many times in a row: a machine that wakes from sleep is silent once
LOGS = 10.0  # seconds between two looks at the size of the logs
PATIENCE = 90.0  # seconds for handing over: services that have changed are stopped first
CODE = (
    *(Path(each) for each in (__file__, processes.__file__, postgres.__file__)),
    *(ROOT / "tools" / name for name in ("paths.py", "loopback.py")),
)


@dataclass(frozen=True)
class Wanted:
    """A service, as the supervisor needs to know it.

    Attributes:
        name: of its record and its log.
        argv: program and arguments.
        environment: all its variables.
        folder: where it runs.
        fingerprint: digest of what it is started with: one that runs with another is started anew.
        ports: on which it listens.
        needs: ports of PostgreSQL servers that must let clients in before it is started.
        stop_signal: number of the signal that asks it to end.
        base: others need it, so it is stopped after them.
        pulse: address of Airflow's page of health, where the scheduler's heartbeat stands; empty for others.
    """

    name: str
    argv: list[str]
    environment: dict[str, str]
    folder: str
    fingerprint: str
    ports: tuple[int, ...] = ()
    needs: tuple[int, ...] = ()
    stop_signal: int = signal.SIGTERM
    base: bool = False
    pulse: str = ""


@dataclass(frozen=True)
class Notice:
    """The command that tells people of a death: its last argument is the sentence; nobody is told by none."""

    argv: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Watched:
    """What the supervisor knows of one service.

    Attributes:
        wanted: how it is started.
        record: of its last process; None before the first.
        child: that process, if this supervisor has started it.
        delay: seconds to wait after the next death.
        due: monotonic time of the next attempt, while none runs.
        starved: processes that the kernel had ended for want of memory when it was started.
        silent: looks in a row that found no heartbeat.
    """

    wanted: Wanted
    record: Record | None = None
    child: "subprocess.Popen[bytes] | None" = None
    delay: float = 1.0
    due: float = 0.0
    starved: int = 0
    silent: int = 0

    @property
    def running(self) -> bool:
        """Whether a process of it was not yet seen to die."""
        return self.record is not None and not self.record.waits

    def postpone(self) -> float:
        """Set the time of the next attempt; returns the seconds until then."""
        seconds, self.delay = self.delay, min(LONGEST, self.delay * 2)
        self.due = time.monotonic() + seconds
        return seconds

    def wait(self, reason: str, died: str | None = None) -> None:
        """Record why no process of it runs."""
        record = self.record or Record(self.wanted.name, 0, 0, "", self.wanted.fingerprint)
        changed = replace(record, waits=reason, died=record.died if died is None else died)
        if changed != self.record:
            self.record = changed
            with suppress(OSError):  # a full disk: the supervisor knows it all the same
                changed.save()


class Supervisor:
    """All services of one stack."""

    def __init__(self) -> None:
        self._services: dict[str, Watched] = {}
        self._notice = Notice()
        self._telling: list[subprocess.Popen[bytes]] = []
        self._logs_due = 0.0
        self._pulse_due = 0.0

    def take(self) -> None:
        """Read what is wanted now: keep what runs so, stop all else; `look` starts what is missing."""
        try:
            told = json.loads(_wanted_file().read_text())
        except FileNotFoundError:
            return
        wanted = [Wanted(**each) for each in told["services"]]
        self._notice = Notice(**told["notice"])
        fingerprints = {each.name: each.fingerprint for each in wanted}
        records = {name: record for name, record in processes.records().items() if name != NAME}
        kept = {
            name: record
            for name, record in records.items()
            if fingerprints.get(name) == record.fingerprint and processes.of_this_boot(record)
        }
        if stopped := [record for name, record in records.items() if name not in kept]:
            _note(f"stops {', '.join(record.name for record in stopped)}")
            processes.stop(stopped)
        before, self._services = self._services, {}
        for each in wanted:
            watched = self._services[each.name] = Watched(each, kept.get(each.name))
            if each.name in kept and each.name in before:
                watched.child, watched.starved = before[each.name].child, before[each.name].starved
        _wanted_file().unlink()

    def look(self) -> float:
        """See who has died, and start what is due.

        Returns:
            Seconds until something is due, unless a signal comes.
        """
        for watched in self._services.values():
            if watched.running:
                self._see(watched)
            if not watched.running and watched.due <= time.monotonic():
                _start(watched)
        self._telling = [each for each in self._telling if each.poll() is None]
        now = time.monotonic()
        if self._pulse_due <= now:
            self._pulse_due = now + PULSE
            for watched in self._services.values():
                if watched.running and watched.wanted.pulse:
                    feel(watched)
        if self._logs_due <= now:
            self._logs_due = now + LOGS
            for name in (NAME, *self._services):
                with suppress(OSError):  # a full disk: later
                    processes.rotate(processes.log_file(name))
        times = [watched.due - now for watched in self._services.values() if not watched.running]
        return max(0.05, min([LOOK, *times]))

    def _see(self, watched: Watched) -> None:
        record = watched.record
        if record is None or processes.alive(record):
            return
        lived = time.time() - (record.since or time.time())
        how = f"{_how(watched)} after {lived:,.0f} s"
        watched.child = None
        if lived >= SETTLED:
            watched.delay = 1.0
        seconds = watched.postpone()
        watched.wait(f"starts again within {seconds:g} s", f"{_clock()} {how}")
        _into_log(record.name, f"pid {record.pid} {how}")
        _note(f"{record.name}, pid {record.pid}, {how}; starts again in {seconds:g} s")
        if self._notice.argv:
            with suppress(OSError):
                self._telling.append(
                    subprocess.Popen(
                        [*self._notice.argv, record.name, how],
                        cwd=ROOT,
                        env=self._notice.environment,
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )


def hand_over(services: list[Wanted], notice: Notice) -> None:
    """Tell the supervisor what is wanted, and begin one if there is none of this code.

    It has stopped what is not wanted when this returns; what it starts is in the records soon after.

    Args:
        services: all that are to run.
        notice: how people are told of a death.

    Raises:
        SystemExit: with 1, the supervisor does not take it.
    """
    told = {"services": [asdict(each) for each in services], "notice": asdict(notice)}
    write_private(_wanted_file(), json.dumps(told))
    record = processes.records().get(NAME)
    if record and processes.alive(record) and record.fingerprint == code():
        os.kill(record.pid, signal.SIGHUP)
    else:
        if record:
            processes.stop([record])
        argv = [sys.executable, "-m", "tools.local.supervisor"]
        record, process = processes.start(
            NAME, argv, environment=_own_environment(), folder=ROOT, fingerprint=code()
        )
        process.returncode = 0  # it is meant to outlive this script, and Popen would complain
    deadline = time.monotonic() + PATIENCE
    while _wanted_file().exists():
        if not processes.alive(record) or time.monotonic() > deadline:
            _wanted_file().unlink(missing_ok=True)
            fail(f"the supervisor does not start the services: see {processes.log_file(NAME)}", 1)
        time.sleep(0.05)


def code() -> str:
    """Digest the supervisor's own code: another one takes the place of a running one."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in CODE)).hexdigest()


def main() -> int:
    """Watch until SIGTERM."""
    asked: set[int] = set()
    waking, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda number, _: asked.add(number))
    _note(f"begins, pid {os.getpid()}")
    supervisor = Supervisor()
    supervisor.take()
    while not asked & {signal.SIGTERM, signal.SIGINT}:
        select.select([waking], [], [], supervisor.look())
        with suppress(BlockingIOError):
            os.read(waking, 4096)
        if signal.SIGHUP in asked:
            asked.discard(signal.SIGHUP)
            supervisor.take()
    _note("ends; the services go on")
    return 0


def _start(watched: Watched) -> None:
    wanted, old = watched.wanted, watched.record
    for port in wanted.needs:
        if reason := postgres.health(port):
            watched.due = time.monotonic() + 0.5
            watched.wait(f"waits for PostgreSQL on port {port}: {reason}")
            return
    again = old is not None and old.pid > 0
    try:
        if old and (ended := processes.end_orphans(old)):
            _note(f"{wanted.name} has left {ended} processes behind, which are ended")
        _into_log(wanted.name, "is started again" if again else "is started")
        watched.starved = _starved()
        watched.record, watched.child = processes.start(
            wanted.name,
            wanted.argv,
            environment=wanted.environment,
            folder=Path(wanted.folder),
            fingerprint=wanted.fingerprint,
            ports=tuple(wanted.ports),
            stop_signal=wanted.stop_signal,
            base=wanted.base,
            restarts=old.restarts + 1 if old and again else 0,
            died=old.died if old else "",
        )
    except OSError as error:
        _note(f"{wanted.name} does not start: {error}; tried again in {watched.postpone():g} s")
        watched.wait(f"does not start: {error}")
    else:
        _note(f"{wanted.name} {'runs again' if again else 'runs'}, pid {watched.record.pid}")


def _how(watched: Watched) -> str:
    """Say how a service's process ended."""
    code = None
    if watched.child:
        with suppress(subprocess.TimeoutExpired):
            # Its threads may still be ending: only after the last of them is there a status.
            code = watched.child.wait(timeout=ENDING)
    if code is None:
        return "ended"  # another supervisor's child: nobody kept its status
    if code >= 0:
        return f"ended with exit code {code}"
    by = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    memory = -code == signal.SIGKILL and _starved() > watched.starved
    return f"was killed by {by}{', as the machine was out of memory,' if memory else ''}"


def feel(watched: Watched) -> None:
    """End a scheduler that lives without a heartbeat; the next look finds it dead.

    Args:
        watched: with a `pulse`; its count of silent looks is changed in place.
    """
    record = watched.record
    young = record is None or time.time() - record.since < SETTLED
    watched.silent = 0 if young or not _still(watched.wanted.pulse) else watched.silent + 1
    if record is not None and watched.silent >= SILENT_LOOKS and processes.alive(record):
        watched.silent = 0
        _into_log(record.name, f"gave no heartbeat for {SILENCE:g} s and is killed")
        _note(f"{record.name}, pid {record.pid}, gave no heartbeat for {SILENCE:g} s: it is killed")
        os.kill(record.pid, signal.SIGKILL)


def _still(page: str) -> bool:
    """Tell whether Airflow, which must answer and have its database, knows of no recent heartbeat."""
    try:
        said = json.loads(ask(page, seconds=2))
        beat = datetime.fromisoformat(said["scheduler"]["latest_scheduler_heartbeat"]).timestamp()
        return said["metadatabase"]["status"] == "healthy" and time.time() - beat > SILENCE
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return False


def _starved() -> int:
    """Count the processes that the kernel has ended for want of memory since the machine's start."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _own_environment() -> Mapping[str, str]:
    """Give the variables that the supervisor itself needs: no secret is among them."""
    needed = ("PATH", "HOME", "LANG", "IMAGEBATCH_VAR")
    return {name: value for name, value in os.environ.items() if name in needed}


def _wanted_file() -> Path:
    return VAR / "services" / "wanted"


def _clock() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _note(text: str) -> None:
    """Write a line into the supervisor's own log."""
    with suppress(OSError):  # a full disk must not end it
        say(f"{_clock()} {text}")


def _into_log(name: str, text: str) -> None:
    """Write a line between those of a service."""
    with suppress(OSError), processes.log_file(name).open("a", encoding="utf-8") as log:
        log.write(f"== {_clock()} {name} {text} ==\n")


if __name__ == "__main__":
    sys.exit(main())
