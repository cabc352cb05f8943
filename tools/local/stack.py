"""`make up`, `down`, `status`: the stack without containers, on loopback.

TorchServe, PostgreSQL, Airflow and MLflow; a supervisor starts again what dies (supervisor.py).
"""

import fcntl
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from tools.airflow_api import AirflowError
from tools.local import java, processes, supervisor
from tools.local.processes import Record
from tools.local.services import (
    ADMIN,
    AIRFLOW,
    PASSWORDS,
    POSTGRES,
    Service,
    airflow_api,
    airflow_settings,
    notice,
    password,
    services,
)
from tools.paths import CONFIGURATION, PORTS, ROOT, VAR, Argv, fail, program, run, say, step, url

PATIENCE = 180.0  # seconds for the whole stack to become healthy; 25 on two idle cores
DEATHS = 3  # of a service while it is waited for, after which waiting has no sense
POOLS = ROOT / "airflow" / "pools.json"
FREE_GB = 1.0  # logs and runs; less ends in half-written databases


def main(argv: list[str]) -> int:
    """Run one verb.

    Args:
        argv: `up`, `down` or `status`.

    Returns:
        Exit code: 0, 1 where `status` finds something down, 2 for another verb.
    """
    verbs: dict[str, Callable[[], int]] = {"up": up, "down": down, "status": status}
    if len(argv) != 1 or argv[0] not in verbs:
        say(f"usage: python3.11 -m tools.local.stack {'|'.join(verbs)}")
        return 2
    if argv[0] == "status":
        return status()  # asks only, also while another one works
    with _one_at_a_time():
        return verbs[argv[0]]()


def up() -> int:
    """Start what does not run, wait until all is healthy, print addresses and login."""
    found = java.find()
    if found is None:
        fail(f"no Java {java.OLDEST} or newer: run `make setup`")
    VAR.mkdir(parents=True, exist_ok=True)
    wanted = services(found)
    recorded = processes.records()
    missing = [service for service in wanted if not _current(recorded.get(service.name), service)]
    known = {supervisor.NAME, *(service.name for service in wanted)}
    if missing or not _supervised(recorded) or recorded.keys() - known:
        _begin(missing, recorded, found)
    _wait(services(found))
    if not _airflow_prepared():
        _set_pools()
    _print_addresses()
    _print_deaths()
    return 0


def down() -> int:
    """Stop everything that `up` started, and everything that those services started."""
    recorded = processes.records()
    if not recorded:
        say("nothing is running")
        return 0
    watching = [record for name, record in recorded.items() if name == supervisor.NAME]
    with step(f"stop {len(recorded) - len(watching)} services"):
        left = processes.stop(watching)  # first, or it would start them again
        left += processes.stop(processes.records().values())
    if left:
        fail(f"processes {', '.join(map(str, left))} survive SIGKILL: the kernel holds them", 1)
    return 0


def status() -> int:
    """Print a table of the services.

    Returns:
        0 if all are healthy, else 1.
    """
    recorded = processes.records()
    described = services(java.find() or Path("java"))
    with ThreadPoolExecutor(len(described)) as executor:
        states = list(executor.map(lambda service: _state(service, recorded.get(service.name)), described))
    watching = recorded.get(supervisor.NAME)
    lines = [("service", "state", "pid", "since", "restarts", "address", "log")]
    watched = bool(watching and processes.alive(watching))
    lines.append(_row(supervisor.NAME, "healthy" if watched else "down", watching, "", ""))
    for service, state in zip(described, states, strict=True):
        record = recorded.get(service.name)
        restarts = str(record.restarts) if record else ""
        lines.append(_row(service.name, state, record, restarts, service.address))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    _print_deaths()
    if recorded and not watched:
        say("nothing starts again what dies: the supervisor is gone, `make up` begins another")
    return 1 if any(line[1] != "healthy" for line in lines[1:]) else 0


def _begin(missing: list[Service], recorded: dict[str, Record], found: Path) -> None:
    """Prepare what is missing, and hand all services over to the supervisor."""
    if supervisor.NAME not in recorded:  # started by a version without one: their ports are not recorded
        old = [recorded[service.name] for service in missing if service.name in recorded]
        processes.stop(old)
        recorded = processes.records()
    _preflight(missing, recorded, found)
    for service in missing:
        service.prepare()
    wanted = services(found)  # anew: PostgreSQL's command depends on whose its data are
    if not _airflow_prepared():  # their database first, while the others start
        rest = [service for service in wanted if not service.name.startswith("airflow")]
        supervisor.hand_over([service.wanted() for service in rest], notice())
        _wait([service for service in rest if service.base])
        _migrate_airflow()
    supervisor.hand_over([service.wanted() for service in wanted], notice())


def _row(
    name: str, state: str, record: Record | None, restarts: str, address: str
) -> tuple[str, str, str, str, str, str, str]:
    lives = bool(record and processes.alive(record))
    pid = str(record.pid) if record and lives else ""
    since = _clock(record.since) if record and lives else ""
    return name, state, pid, since, restarts, address, _shown(processes.log_file(name))


def _state(service: Service, record: Record | None) -> str:
    if record and processes.alive(record):
        return service.healthy() or "healthy"
    return f"down, {record.waits}" if record and record.waits else "down"


def _supervised(recorded: dict[str, Record]) -> bool:
    record = recorded.get(supervisor.NAME)
    return bool(record and processes.alive(record) and record.fingerprint == supervisor.code())


def _current(record: Record | None, service: Service) -> bool:
    return bool(record and processes.alive(record) and record.fingerprint == service.fingerprint())


def _preflight(missing: list[Service], recorded: dict[str, Record], found: Path) -> None:
    own = {port for record in recorded.values() if processes.members(record) for port in record.ports}
    ports = ",".join(str(port) for service in missing for port in service.ports if port not in own)
    doctor: Argv = [program("pipeline_image", "imagebatch"), "doctor", f"--ports={ports}", f"--java={found}"]
    argv: Argv = [*doctor, f"--min-free-gb={FREE_GB}", f"--path={VAR}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        complaints = done.stderr.strip().splitlines() or ["imagebatch doctor failed"]
        fail(
            f"{complaints[-1]} (IMAGEBATCH_PORT_… and IMAGEBATCH_VAR choose other ports and another folder)",
            CONFIGURATION,
        )


def _airflow_stamp() -> tuple[Path, str]:
    inputs = [ROOT / "airflow" / "uv.lock", POOLS]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    return POSTGRES.folder / "prepared", wanted  # beside the data: who moves them away moves it along


def _airflow_prepared() -> bool:
    stamp, wanted = _airflow_stamp()
    return stamp.exists() and stamp.read_text() == wanted


def _migrate_airflow() -> None:
    stamp, _ = _airflow_stamp()
    if (old := AIRFLOW / "airflow.db").exists() and not stamp.exists():
        say(
            "Airflow's database is PostgreSQL now: the history in its UI begins anew, runs and CSVs stay "
            f"(the old one, {_shown(old)}, is not read any more)"
        )
    with step("airflow: database"):
        run([program("airflow", "airflow"), "db", "migrate"], quiet=True, environment=airflow_settings())


def _set_pools() -> None:
    """Make Airflow's pools, by its API: another start of its command line would take some seconds."""
    try:
        api = airflow_api()
        for name, pool in json.loads(POOLS.read_text()).items():
            try:
                api.call("/api/v2/pools", {"name": name, **pool})
            except AirflowError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                api.call(f"/api/v2/pools/{name}", {"pool": name, **pool}, "PATCH")
    except (AirflowError, OSError) as error:
        fail(f"Airflow's pools cannot be made: {error}", 1)
    stamp, wanted = _airflow_stamp()
    stamp.write_text(wanted)


def _wait(wanted: list[Service]) -> None:
    """Wait until services are healthy; each death meanwhile is told."""
    begun = time.monotonic()
    pending = {service.name: service for service in wanted}
    told: dict[str, str] = {}
    deaths = dict.fromkeys(pending, 0)
    seen = {name: record.died for name, record in processes.records().items()}
    while pending:
        recorded = processes.records()
        for name, service in list(pending.items()):
            record = recorded.get(name)
            if record and record.died != seen.get(name, ""):
                seen[name] = record.died
                deaths[name] += 1
                say(f"{name:<34}{time.monotonic() - begun:7.1f} s  {record.died.split(' UTC ')[-1]}")
                if deaths[name] == DEATHS:
                    _give_up(name, f"has died {DEATHS} times while starting, the last time {record.died}")
            reason = service.healthy() if record and processes.alive(record) else "does not run yet"
            if not reason:
                say(f"{name:<34}{time.monotonic() - begun:7.1f} s  healthy")
                del pending[name]
            elif told.get(name) != reason and time.monotonic() - begun > 5:  # noqa: PLR2004 - seconds of silence
                told[name] = reason
                say(f"{name:<34}{time.monotonic() - begun:7.1f} s  {reason}")
        if pending and time.monotonic() - begun > PATIENCE:
            name, service = next(iter(pending.items()))
            _give_up(name, f"is not healthy after {PATIENCE:.0f} s: {service.healthy()}")
        time.sleep(0.2 if pending else 0)


def _give_up(name: str, reason: str) -> None:
    log = processes.log_file(name)
    if log.exists():
        for line in log.read_text(errors="replace").splitlines()[-20:]:
            print(line, file=sys.stderr)
    fail(f"{name} {reason}; its log is {log}, `make down` stops the rest", 1)


def _print_addresses() -> None:
    say("")
    say(f"Airflow     {url('airflow')}  login {ADMIN} / {password()}  (kept in {PASSWORDS})")
    say(f"MLflow      {url('mlflow')}")
    say(f"TorchServe  {url('inference')}  management {PORTS['management']}, metrics {PORTS['metrics']}")


def _print_deaths() -> None:
    for name, record in processes.records().items():
        if record.died:
            again = f"{record.restarts} times, last" if record.restarts > 1 else "once"
            say(f"{name} was started again {again}: {record.died}; see {_shown(processes.log_file(name))}")


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else ""


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    VAR.mkdir(parents=True, exist_ok=True)
    with (VAR / "stack.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail("another `make up` or `make down` is at work: wait for it", 75)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
