"""`make up`, `make down`: TorchServe, Airflow and MLflow on loopback, without a container engine."""

import fcntl
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.local import java, processes
from tools.local.services import ADMIN, AIRFLOW, PASSWORDS, Service, airflow_settings, password, services
from tools.paths import CONFIGURATION, PORTS, ROOT, VAR, Argv, fail, program, run, say, step, url

PATIENCE = 180.0  # seconds for the whole stack to become healthy; 25 on two idle cores
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
    with _one_at_a_time():
        return verbs[argv[0]]()


def up() -> int:
    """Start what does not run, wait until all is healthy, print addresses and login."""
    found = java.find()
    if found is None:
        fail(f"no Java {java.OLDEST} or newer: run `make setup`")
    wanted = services(found)
    running = processes.records()
    stale = [record for name, record in running.items() if not _current(name, record, wanted)]
    if stale:
        with step(f"stop changed or dead: {', '.join(record.name for record in stale)}"):
            processes.stop(stale)
    missing = [service for service in wanted if service.name not in processes.records()]
    if missing:
        _preflight(missing, found)
        if any(service.name.startswith("airflow") for service in missing):
            _prepare_airflow()
        for service in missing:
            processes.start(
                service.name,
                service.argv,
                environment=service.environment,
                folder=service.folder,
                fingerprint=service.fingerprint(),
            )
    _wait(wanted)
    _print_addresses()
    return 0


def down() -> int:
    """Stop everything that `up` started, and everything that those services started."""
    recorded = processes.records()
    if not recorded:
        say("nothing is running")
        return 0
    with step(f"stop {len(recorded)} services"):
        left = processes.stop(recorded.values())
    if left:
        fail(f"processes {', '.join(map(str, left))} survive SIGKILL: the kernel holds them", 1)
    return 0


def status() -> int:
    """Print one line per service."""
    recorded = processes.records()
    found = java.find()
    down_count = 0
    for service in services(found or Path("java")):
        record = recorded.get(service.name)
        state = "down"
        if record and processes.alive(record):
            state = service.healthy() or "healthy"
        down_count += state != "healthy"
        say(f"{service.name:<24}{state}")
    return 1 if down_count else 0


def _current(name: str, record: processes.Record, wanted: list[Service]) -> bool:
    described = next((service for service in wanted if service.name == name), None)
    return bool(described and processes.alive(record) and record.fingerprint == described.fingerprint())


def _preflight(missing: list[Service], found: Path) -> None:
    ports = ",".join(str(port) for service in missing for port in service.ports)
    VAR.mkdir(parents=True, exist_ok=True)
    doctor: Argv = [program("pipeline_image", "imagebatch"), "doctor", f"--ports={ports}", f"--java={found}"]
    argv: Argv = [*doctor, f"--min-free-gb={FREE_GB}", f"--path={VAR}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        complaints = done.stderr.strip().splitlines() or ["imagebatch doctor failed"]
        fail(
            f"{complaints[-1]} (IMAGEBATCH_PORT_… and IMAGEBATCH_VAR choose other ports and another folder)",
            CONFIGURATION,
        )


def _prepare_airflow() -> None:
    inputs = [ROOT / "airflow" / "uv.lock", ROOT / "airflow" / "pools.json"]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    stamp = AIRFLOW / "prepared"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    airflow = program("airflow", "airflow")
    with step("airflow: database and pools"):
        run([airflow, "db", "migrate"], quiet=True, environment=airflow_settings())
        run([airflow, "pools", "import", str(inputs[1])], quiet=True, environment=airflow_settings())
    stamp.write_text(wanted)


def _wait(wanted: list[Service]) -> None:
    begun = time.monotonic()
    pending = {service.name: service for service in wanted}
    told: dict[str, str] = {}
    while pending:
        recorded = processes.records()
        for name, service in list(pending.items()):
            if not processes.alive(recorded[name]):
                _give_up(name, "ended while starting")
            reason = service.healthy()
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
    for line in log.read_text(errors="replace").splitlines()[-20:]:
        print(line, file=sys.stderr)
    fail(f"{name} {reason}; its log is {log}, `make down` stops the rest", 1)


def _print_addresses() -> None:
    say("")
    say(f"Airflow     {url('airflow')}  login {ADMIN} / {password()}  (kept in {PASSWORDS})")
    say(f"MLflow      {url('mlflow')}")
    say(f"TorchServe  {url('inference')}  management {PORTS['management']}, metrics {PORTS['metrics']}")


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
