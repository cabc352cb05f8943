import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from tools.local import postgres
from tools.local.postgres import Cluster
from tools.loopback import free_ports


def start(cluster: Cluster) -> "subprocess.Popen[bytes]":
    """Start the server and wait until it lets clients in."""
    server = subprocess.Popen(
        cluster.argv, env={**os.environ, **postgres.VARIABLES}, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while reason := cluster.health():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            pytest.fail(f"{reason}: {server.communicate()[1].decode()}")
        time.sleep(0.05)
    return server


def stop(server: "subprocess.Popen[bytes]", number: int = postgres.STOP_SIGNAL) -> None:
    """End the server and wait for it."""
    server.send_signal(number)
    server.communicate(timeout=60)


def connect(cluster: Cluster, **other: str) -> "psycopg2.extensions.connection":
    """Log in as Airflow does, or as somebody else."""
    login = {"user": postgres.NAME, "dbname": postgres.NAME, "password": cluster.password(), **other}
    return psycopg2.connect(host="127.0.0.1", port=cluster.port, connect_timeout=20, **login)


class Running:
    """A cluster and its server.

    Args:
        cluster: prepared.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.server = start(cluster)

    def restart(self, number: int = postgres.STOP_SIGNAL, before: Callable[[], None] = lambda: None) -> None:
        """End the server with a signal, do something, and start it again."""
        stop(self.server, number)
        before()
        self.server = start(self.cluster)


@pytest.fixture(scope="module", params=["open", "private"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Make a cluster and run its server, in a folder that everybody may enter, and in a private one."""
    above = Path(tempfile.mkdtemp(prefix="imagebatch-postgres-"))
    above.chmod(0o755 if request.param == "open" else 0o700)
    cluster = Cluster(above / "below" / "postgres", free_ports(1)[0])
    try:
        assert cluster.prepare()
        made = Running(cluster)
        try:
            yield made
        finally:
            stop(made.server)
        assert stat_mode(above) == (0o755 if request.param == "open" else 0o700)
    finally:
        shutil.rmtree(above)


@pytest.fixture
def cluster(running: Running) -> Cluster:
    """Take the running cluster."""
    return running.cluster


def stat_mode(path: Path) -> int:
    """Read a path's permissions."""
    return path.stat().st_mode & 0o777


def test_it_runs_wherever_the_folder_lies_and_whoever_starts_it(cluster: Cluster) -> None:
    """The data and the password are their owner's alone, and a second preparation changes nothing."""
    assert cluster.health() == ""
    assert stat_mode(cluster.data) == 0o700
    assert stat_mode(cluster.folder / "password") == 0o600
    assert not cluster.prepare()


def test_only_the_one_login_is_let_in(cluster: Cluster) -> None:
    """Neither a wrong password, nor the superuser, nor another database; passwords are kept as SCRAM."""
    for other in ({"password": "wrong"}, {"user": "postgres"}, {"dbname": "postgres"}, {"user": "nobody"}):
        with pytest.raises(psycopg2.OperationalError):
            connect(cluster, **other)
    with connect(cluster) as connection, connection.cursor() as cursor:
        cursor.execute("select rolsuper from pg_roles where rolname = current_user")
        assert cursor.fetchone() == (False,)
        cursor.execute("show password_encryption")
        assert cursor.fetchone() == ("scram-sha-256",)
    connection.close()


def test_it_listens_on_loopback_alone(cluster: Cluster) -> None:
    """One address, no socket file: what the kernel says of the port."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    port = f":{cluster.port:04X}"
    listening = [fields[1] for fields in lines if fields[3] == "0A" and fields[1].endswith(port)]
    assert listening == [f"0100007F{port}"]
    assert f":{cluster.port}" not in Path("/proc/net/unix").read_text()
    assert not list(cluster.folder.rglob(".s.PGSQL*"))


def test_durability_is_not_given_away(cluster: Cluster) -> None:
    """Nothing is switched off that a power cut would need."""
    with connect(cluster) as connection, connection.cursor() as cursor:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            cursor.execute(f"show {name}")
            assert cursor.fetchone() == ("on",), name
    connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")
def test_a_user_without_a_name_runs_it() -> None:
    """That passwd does not know who starts it, as in containers, is no obstacle."""
    user = 54321
    if not all(above.stat().st_mode & 1 for above in postgres.program("postgres").parents):
        pytest.skip("this checkout lies where others may not enter")
    folder = Path(tempfile.mkdtemp(prefix="imagebatch-postgres-"))
    os.chown(folder, user, -1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            cluster = Cluster(folder / "postgres", free_ports(1)[0])
            cluster.prepare()
            stop(start(cluster))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (folder / "postgres" / "data").stat().st_uid == user
    shutil.rmtree(folder)


def test_what_was_committed_is_there_after_a_kill(running: Running) -> None:
    """SIGKILL to the server in the midst of a transaction: the next start has what was committed before."""
    connection = connect(running.cluster)
    with connection.cursor() as cursor:
        cursor.execute("create table kept (number integer)")
        cursor.execute("insert into kept values (1)")
        connection.commit()
        cursor.execute("insert into kept values (2)")
    running.restart(signal.SIGKILL)
    connection.close()
    with connect(running.cluster) as again, again.cursor() as cursor:
        cursor.execute("select number from kept")
        assert cursor.fetchall() == [(1,)]
    again.close()


def test_a_lock_that_a_power_cut_has_left_is_no_obstacle(running: Running) -> None:
    """The number in it is another program's by now, here this test's: the server starts all the same."""
    lock = running.cluster.data / "postmaster.pid"

    def leave() -> None:
        lock.write_text(f"{os.getpid()}\n{running.cluster.data}\n")
        assert not running.cluster.prepare()

    running.restart(before=leave)


def test_data_of_another_version_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which versions, what to do, and what is not lost."""
    cluster = Cluster(tmp_path, free_ports(1)[0])
    cluster.data.mkdir()
    (cluster.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(SystemExit) as ended:
        cluster.prepare()
    assert ended.value.code == 78
    said = capsys.readouterr().err
    assert re.search(r"PostgreSQL 9's, and \d+ is installed: move .* away", said)
    assert said.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a way to be another")
def test_root_is_told_what_to_do_where_neither_way_is_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the programs that make it nobody: one line with what each way said, and nothing half-made."""
    monkeypatch.setattr(postgres, "AS_NOBODY", ["/nonexistent/setpriv"])
    monkeypatch.setattr(postgres, "CALLED_NOBODY", ["/nonexistent/unshare"])
    with pytest.raises(SystemExit) as ended:
        Cluster(tmp_path / "postgres", 1).prepare()
    assert ended.value.code == 78
    said = capsys.readouterr().err
    assert "setpriv" in said
    assert "unshare" in said
    assert "start the stack as another user" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "postgres" / "data").exists()


def test_a_missing_program_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the wheel, as after a pull without `make setup`, the line names the remedy."""
    monkeypatch.setattr(postgres, "WHEEL", tmp_path)
    with pytest.raises(SystemExit) as ended:
        Cluster(tmp_path, 1).prepare()
    assert ended.value.code == 78
    assert "make setup" in capsys.readouterr().err


def test_another_program_on_the_port_is_not_taken_for_it() -> None:
    """Health is asked in PostgreSQL's own protocol."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        def answer() -> None:
            with other.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert Cluster(Path("/nonexistent"), port).health() == "does not speak PostgreSQL's protocol"
        thread.join()
