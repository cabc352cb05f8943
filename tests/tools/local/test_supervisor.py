import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools.local import processes, stack, supervisor
from tools.local.supervisor import Notice, Wanted, Watched, hand_over
from tools.loopback import free_ports
from tools.paths import ROOT, VAR

# As TorchServe's Java does, a child listens: while it lives, no other can.
HOLDER = """
import subprocess, sys, time
listen = '''
import socket, sys, time
with socket.socket() as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", int(sys.argv[1])))
    server.listen()
    print("listens", flush=True)
    time.sleep(600)
'''
child = subprocess.Popen([sys.executable, "-c", listen, sys.argv[1]], stdout=subprocess.PIPE)
if not child.stdout.readline():
    sys.exit("the port is taken")
print("ready", flush=True)
time.sleep(600)
"""
# Answers each client with these bytes, as PostgreSQL does with its first.
ANSWERING = """
import socket, sys
with socket.socket() as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", int(sys.argv[1])))
    server.listen()
    while True:
        with server.accept()[0] as client:
            client.recv(1000)
            client.sendall(bytes.fromhex(sys.argv[2]))
"""
# Its leading thread ends at once, and a second one a moment later: until then there is no exit status.
LEADERLESS = """
import ctypes, os, threading, time
threading.Thread(target=lambda: (time.sleep(1.5), os._exit(7))).start()
ctypes.CDLL(None).pthread_exit(None)
"""
SLEEPER = "import time; print('ready', flush=True); time.sleep(600)"


def wanted(name: str, code: str, *arguments: object, fingerprint: str = "1", needs: int = 0) -> Wanted:
    """Describe a service made of Python code."""
    return Wanted(
        name=name,
        argv=[sys.executable, "-c", code, *map(str, arguments)],
        environment=dict(os.environ),
        folder=str(VAR / "cwd" / name),
        fingerprint=fingerprint,
        needs=(needs,) if needs else (),
    )


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something; the supervisor's log is shown where it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        log = processes.log_file(supervisor.NAME)
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no supervisor"
        time.sleep(0.05)


def runs(name: str) -> bool:
    """Tell whether a service's process is there."""
    record = processes.records().get(name)
    return record is not None and not record.waits and processes.alive(record)


def kill(name: str) -> int:
    """Kill a service, or the supervisor, with SIGKILL; returns its pid."""
    pid = processes.records()[name].pid
    os.kill(pid, signal.SIGKILL)
    return pid


def back(name: str, pid: int) -> bool:
    """Tell whether another process of a service runs than that one."""
    return runs(name) and processes.records()[name].pid != pid


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Stop, after each test, the supervisor and its services, as `make down` does."""
    assert not VAR.is_relative_to(ROOT), "these tests are about to stop the stack of this checkout"
    yield
    recorded = processes.records()
    processes.stop([record for name, record in recorded.items() if name == supervisor.NAME])
    processes.stop(processes.records().values())


def test_a_killed_service_is_back_and_what_it_left_was_ended_before() -> None:
    """The child that held the port is gone, else the second start would fail; how the first ended is kept."""
    (port,) = free_ports(1)
    hand_over([wanted("holder", HOLDER, port)], Notice())
    until(lambda: runs("holder") and "ready" in processes.log_file("holder").read_text())
    pid = kill("holder")
    until(lambda: back("holder", pid) and processes.log_file("holder").read_text().count("ready") == 2)
    record = processes.records()["holder"]
    assert record.restarts == 1
    assert "was killed by SIGKILL after" in record.died
    assert "was killed by SIGKILL after" in processes.log_file("holder").read_text()
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_service_that_dies_again_and_again_is_tried_at_growing_intervals() -> None:
    """Its exit code is told, its output of all attempts is kept, and the pauses double."""
    hand_over([wanted("dying", "import sys; print('an attempt'); sys.exit(7)")], Notice())
    told = processes.log_file(supervisor.NAME)
    until(lambda: all(f"starts again in {seconds} s" in told.read_text() for seconds in (1, 2, 4)))
    assert "ended with exit code 7 after 0 s" in processes.records()["dying"].died
    assert processes.log_file("dying").read_text().count("an attempt") == 3


def test_how_a_process_ended_is_known_although_a_thread_of_it_outlived_it() -> None:
    """A killed server has dozens of threads, and is seen to be dead before the last of them has ended."""
    hand_over([wanted("leaderless", LEADERLESS)], Notice())
    until(lambda: bool(getattr(processes.records().get("leaderless"), "died", "")))
    assert "ended with exit code 7" in processes.records()["leaderless"].died


def test_a_program_that_is_not_there_says_so_in_its_log() -> None:
    """A service whose environment is being installed is tried again, like one that dies."""
    missing = str(VAR / "nowhere" / "program")
    hand_over([Wanted("missing", [missing], dict(os.environ), str(VAR / "cwd"), "1")], Notice())
    until(lambda: "exit code 127" in getattr(processes.records().get("missing"), "died", ""))
    assert missing in processes.log_file("missing").read_text()


def test_services_outlive_a_killed_supervisor_and_the_next_one_goes_on() -> None:
    """The same processes are kept, and from then on started again when they die."""
    services = [wanted("kept", SLEEPER)]
    hand_over(services, Notice())
    until(lambda: runs("kept"))
    before = processes.records()["kept"]
    kill(supervisor.NAME)
    until(lambda: not processes.alive(processes.records()[supervisor.NAME]))
    assert runs("kept")
    hand_over(services, Notice())
    assert processes.records()["kept"] == before
    pid = kill("kept")
    until(lambda: back("kept", pid))
    assert processes.records()["kept"].restarts == 1


@pytest.mark.parametrize("supervised", [True, False])
def test_down_ends_everything_also_without_a_supervisor(*, supervised: bool) -> None:
    """The supervisor goes first, so nothing comes back; where it was killed, its services end as well."""
    (port,) = free_ports(1)
    hand_over([wanted("holder", HOLDER, port), wanted("sleeper", SLEEPER)], Notice())
    until(lambda: runs("sleeper") and processes.log_file("holder").read_text().endswith("ready\n"))
    recorded = processes.records()
    members = [pid for record in recorded.values() for pid in processes.members(record)]
    assert len(members) == 4
    if not supervised:
        kill(supervisor.NAME)
        kill("holder")
    assert stack.down() == 0
    assert processes.records() == {}
    assert [pid for pid in members if (seen := processes.look(pid)) and seen.state != "Z"] == []


def test_only_what_has_changed_is_started_anew() -> None:
    """An unchanged service keeps its process, a changed one gets another, an unwanted one is stopped."""
    hand_over([wanted("same", SLEEPER), wanted("changed", SLEEPER), wanted("unwanted", SLEEPER)], Notice())
    until(lambda: all(map(runs, ("same", "changed", "unwanted"))))
    before = processes.records()
    hand_over([wanted("same", SLEEPER), wanted("changed", SLEEPER, fingerprint="2")], Notice())
    assert not processes.alive(before["unwanted"])
    until(lambda: back("changed", before["changed"].pid))
    now = processes.records()
    assert now.keys() == {supervisor.NAME, "same", "changed"}
    assert now["same"] == before["same"]
    assert now[supervisor.NAME] == before[supervisor.NAME]
    assert now["changed"].restarts == 0


def test_a_service_waits_until_its_database_lets_it_in() -> None:
    """Nothing is started while the port is silent, nor while PostgreSQL recovers; the record says so."""
    (port,) = free_ports(1)
    services = [wanted("needing", SLEEPER, needs=port)]
    hand_over(services, Notice())
    until(lambda: "needing" in processes.records())
    assert processes.records()["needing"].waits == f"waits for PostgreSQL on port {port}: does not answer yet"
    refusing = b"E\0\0\0\x20SFATAL\0C57P03\0Mthe database system is starting up\0\0"
    hand_over([*services, wanted("database", ANSWERING, port, refusing.hex())], Notice())
    until(lambda: processes.records()["needing"].waits.endswith("the database system is starting up"))
    letting_in = wanted("database", ANSWERING, port, b"R".hex(), fingerprint="2")
    hand_over([*services, letting_in], Notice())
    until(lambda: runs("needing"))
    assert processes.records()["needing"].restarts == 0


def test_a_death_is_told_to_people(tmp_path: Path) -> None:
    """The command for it gets the service and how it ended."""
    told = tmp_path / "told"
    code = "import sys; open(sys.argv[1], 'a').write(' '.join(sys.argv[2:]) + chr(10))"
    hand_over([wanted("told", SLEEPER)], Notice([sys.executable, "-c", code, str(told)], dict(os.environ)))
    until(lambda: runs("told"))
    kill("told")
    until(lambda: told.exists() and told.read_text().endswith("\n"))
    assert told.read_text().startswith("told was killed by SIGKILL after")


@pytest.fixture
def page() -> Iterator[tuple[str, dict[str, Any]]]:
    """Serve Airflow's page of health; its address, and what it says."""
    said: dict[str, Any] = {}

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", said
        server.shutdown()
        thread.join()


def test_a_scheduler_that_lives_without_a_heartbeat_is_ended(
    page: tuple[str, dict[str, Any]],
) -> None:
    """Three silent looks in a row end it; youth, a page or a database that is away, and one beat spare it."""
    address, said = page
    with subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True) as process:
        try:
            seen = processes.look(process.pid)
            assert seen is not None
            boot = processes.BOOT.read_text().strip()
            record = processes.Record("beating", process.pid, seen.start, boot, "1", since=time.time() - 300)
            watched = Watched(replace(wanted("beating", SLEEPER), pulse=address), record)

            def look(*, age: float, database: str = "healthy", lived: float = 300) -> int:
                beat = datetime.fromtimestamp(time.time() - age, UTC).isoformat()
                said.update(scheduler={"latest_scheduler_heartbeat": beat}, metadatabase={"status": database})
                watched.record = replace(record, since=time.time() - lived)
                supervisor.feel(watched)
                return watched.silent

            assert [look(age=40), look(age=40), look(age=3)] == [1, 2, 0]
            assert [look(age=40, lived=10), look(age=40, database="unhealthy"), look(age=20)] == [0, 0, 0]
            said.clear()
            supervisor.feel(watched)
            assert watched.silent == 0
            assert process.poll() is None
            assert [look(age=40), look(age=45), look(age=50)] == [1, 2, 0]
            assert process.wait(10) == -signal.SIGKILL
        finally:
            process.kill()


def test_variables_do_not_stay_on_the_disk() -> None:
    """What is handed over may hold secrets: it is removed when it is read."""
    service = wanted("secret", SLEEPER)
    service.environment["A_VARIABLE"] = "s3cr3t-value"
    hand_over([service], Notice())
    until(lambda: runs("secret"))
    found = [path for path in VAR.rglob("*") if path.is_file() and b"s3cr3t-value" in path.read_bytes()]
    assert found == []


def test_a_log_that_grows_too_long_is_kept_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes goes on writing, the newest lines come first, and no more than three old ones stay."""
    monkeypatch.setattr(processes, "LOG_BYTES", 10)
    log = tmp_path / "a.log"
    with log.open("a", buffering=1) as writer:
        for number in range(6):
            writer.write(f"line number {number}\n")
            processes.rotate(log)
        writer.write("short\n")
    processes.rotate(log)
    assert log.read_text() == "short\n"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert (tmp_path / "a.log.1").read_text() == "line number 5\n"
    assert (tmp_path / "a.log.3").read_text() == "line number 3\n"


def test_a_record_that_a_power_cut_has_torn_is_none() -> None:
    """Half a file, and one of another version, end nothing."""
    processes.RECORDS.mkdir(parents=True, exist_ok=True)
    for name, content in (("torn", '{"name": "to'), ("list", "[]"), ("other", '{"name": "other"}')):
        (processes.RECORDS / f"{name}.json").write_text(content)
    future = {"name": "future", "pid": 1, "start": 1, "boot": "b", "fingerprint": "f", "unknown": 1}
    (processes.RECORDS / "future.json").write_text(json.dumps(future))
    try:
        assert list(processes.records()) == ["future"]
    finally:
        for name in ("torn", "list", "other", "future"):
            (processes.RECORDS / f"{name}.json").unlink()
