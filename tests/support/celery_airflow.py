"""A real Airflow on several hosts of one machine: PostgreSQL, Redis, Airflow's servers, and Celery workers.

The workers share nothing with the servers but the programs: each is a host of its own (hosts.py), and reaches
what it is told of by wires that can be cut. Standard library only; the programs are of Airflow's environment.
"""

import base64
import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.children import Child, last_line
from tests.support.hosts import Host, impossible
from tools import properties
from tools.airflow_api import AirflowApi, Run
from tools.local import postgres
from tools.local.services import base_environment
from tools.loopback import fetch, free_ports
from tools.paths import ROOT, program, run

COMPONENTS = {"api-server": [], "scheduler": ["--skip-serve-logs"], "dag-processor": []}
PATIENCE = 180.0  # seconds for all to be ready, on two cores that do other things as well
USER = "admin"


def _machine() -> dict[str, str]:
    """Give this machine's variables, without those of the stack that may run beside."""
    return {name: value for name, value in base_environment().items() if "IMAGEBATCH" not in name}


class Redis:
    """A broker that keeps what it has taken, also through a kill.

    Args:
        folder: An empty folder for its data.
        port: On loopback.

    Attributes:
        url: With its password.

    Raises:
        RuntimeError: It is not installed.
    """

    def __init__(self, folder: Path, port: int) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise RuntimeError("redis-server is not installed (Debian: apt-get install redis-server)")
        password = secrets.token_urlsafe(24)
        folder.mkdir()
        # As docker-compose.yaml has it.
        lines = [
            f"bind 127.0.0.1\nport {port}\ndir {folder}\nrequirepass {password}",
            'appendonly yes\nappendfsync always\nsave ""',
        ]
        (folder / "redis.conf").write_text("\n".join(lines) + "\n")
        self._argv = [found, str(folder / "redis.conf")]
        self._folder = folder
        self._starts = 0
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        self.start()

    def start(self) -> None:
        """Starts it, with what it knew."""
        self._starts += 1
        self._process = Child(
            self._argv, environment=_machine(), log=self._folder / f"redis-{self._starts}.log"
        )

    def kill(self) -> None:
        """Kills it (SIGKILL)."""
        self._process.kill()


class CeleryAirflow:
    """One Airflow and its workers.

    Args:
        folder: An empty folder for everything.
        dag: Source of the one file with DAGs.
        stages: Variables of the stages: of the DAG processor and of the workers.
        reached: Ports of this machine that a worker must reach beside Airflow's own, such as the store's.
        workers: Names of the hosts.
        concurrency: Tasks at once on each.

    Attributes:
        redis: The broker.
        hosts: By name.
        workers: The workers' processes, by name of the host.

    Raises:
        RuntimeError: What it needs is not here, or does not start.
    """

    def __init__(
        self,
        folder: Path,
        dag: str,
        stages: Mapping[str, str],
        *,
        reached: Sequence[int] = (),
        workers: Sequence[str] = ("worker-a", "worker-b"),
        concurrency: int = 2,
    ) -> None:
        if reason := impossible():
            raise RuntimeError(f"hosts of their own cannot be made here: {reason}")
        self._folder = folder
        self._stages = stages
        self._ports = dict(zip(("airflow", "redis", "postgres"), free_ports(3), strict=True))
        self._concurrency = concurrency
        self._starts = 0
        (folder / "dags").mkdir(parents=True)
        (folder / "dags" / "on_several_machines.py").write_text(dag)
        self._start_postgres()
        self.redis = Redis(folder / "redis", self._ports["redis"])
        self._password = secrets.token_urlsafe(12)
        (folder / "passwords.json").write_text(json.dumps({USER: self._password}))
        self._common, self._servers = self._settings()
        airflow = program("airflow", "airflow")
        run([airflow, "db", "migrate"], quiet=True, environment=self._servers)
        pools = str(ROOT / "airflow" / "pools.json")
        run([airflow, "pools", "import", pools], quiet=True, environment=self._servers)
        self._children = {name: self._start(name) for name in COMPONENTS}
        reached = [*self._ports.values(), *reached]
        self.hosts = {name: Host(name, folder / name, reached) for name in workers}
        self.workers: dict[str, Child] = {}
        for name in workers:
            self.start_worker(name)
        self._wait()

    @property
    def api(self) -> AirflowApi:
        """A login at its API."""
        return AirflowApi(f"http://127.0.0.1:{self._ports['airflow']}", USER, self._password)

    @property
    def broker_port(self) -> int:
        """Where Redis listens: the number of the wire to it."""
        return self._ports["redis"]

    def start_worker(self, name: str) -> None:
        """Starts the worker of a host, as after a boot."""
        self._starts += 1
        host = self.hosts[name]
        own = {
            **_machine(),
            **self._common,
            **self._stages,
            "AIRFLOW_HOME": str(host.folder / "airflow"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(host.folder / "logs"),
        }
        more = ["--skip-serve-logs", "--celery-hostname", name, "--concurrency", str(self._concurrency)]
        argv = [str(program("airflow", "airflow")), "celery", "worker", *more]
        self.workers[name] = host.start(argv, own, self._folder / "logs" / f"{name}-{self._starts}.log")

    def kill_worker(self, name: str) -> None:
        """Takes the power from a host (SIGKILL to all its processes)."""
        self.workers[name].kill()

    def explain(self, started: Run) -> str:
        """Tells which tasks of a run have not succeeded, and what the first one's log complains of."""
        late = [task for task in self.api.tasks(started) if task["state"] != "success"]
        told = [f"{task['task_id']}[{task['map_index']}] {task['state']}" for task in late]
        name = late[0]["task_id"] if late else "?"
        logs = self._folder.glob(f"*/logs/**/run_id={started.run_id}/task_id={name}/**/attempt=*.log")
        newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
        lines = [json.loads(line) for line in newest.read_text().splitlines()] if newest else []
        errors = [line for line in lines if line.get("level") in {"error", "critical"}]
        details = [detail["exc_value"] for line in errors for detail in line.get("error_detail", ())]
        return f"{', '.join(told)}: {'; '.join([line['event'] for line in errors] + details) or 'no log'}"

    def memory(self, name: str) -> float:
        """Tells what a host's processes take now: proportional set size in MB."""
        return self.workers[name].memory

    def ensure(self) -> None:
        """Starts again what a failed scenario has left dead or cut off."""
        for host in self.hosts.values():
            for wire in host.wires.values():
                wire.mend()
        for name, worker in self.workers.items():
            if not worker.running:
                self.start_worker(name)
        self._wait()

    def _start(self, component: str) -> Child:
        argv = [str(program("airflow", "airflow")), component, *COMPONENTS[component]]
        log = self._folder / "logs" / f"{component}.log"
        return Child(argv, environment=_machine() | self._servers, log=log)

    def _start_postgres(self) -> None:
        cluster = postgres.Cluster(self._folder / "postgres", self._ports["postgres"])
        cluster.prepare()
        environment = {**_machine(), **postgres.VARIABLES}
        self._postgres = Child(
            cluster.argv, environment=environment, log=self._folder / "logs" / "postgres.log"
        )
        self._database = cluster.url
        deadline = time.monotonic() + PATIENCE
        while complaint := cluster.health():
            if time.monotonic() > deadline or not self._postgres.running:
                raise RuntimeError(f"PostgreSQL {complaint}: {last_line(self._postgres.err)}")
            time.sleep(0.1)

    def _settings(self) -> tuple[dict[str, str], dict[str, str]]:
        """Gives what every process is told, and what Airflow's servers are told.

        A worker knows neither Airflow's keys nor, but for its results, its database.
        """
        address = f"http://127.0.0.1:{self._ports['airflow']}"
        common = {
            **properties.read(ROOT / "airflow" / "airflow.env"),
            **properties.read(ROOT / "airflow" / "celery.env"),
            "PATH": f"{program('airflow', '')}:{_machine()['PATH']}",
            "PYTHONPATH": str(ROOT / "dags"),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._folder / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self._database}",
        }
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        servers = {
            **common,
            **self._stages,
            "AIRFLOW_HOME": str(self._folder / "airflow"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._ports["airflow"]),
            "AIRFLOW__API__BASE_URL": address,
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(48),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "AIRFLOW__CORE__FERNET_KEY": key,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._folder / "passwords.json"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self._folder / "airflow" / "logs"),
        }
        return common, servers

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not (complaint := self._complaint()):
                return
            time.sleep(0.5)
        everybody = {**self._children, **self.workers}
        said = {name: last_line(child.err) for name, child in everybody.items()}
        raise RuntimeError(f"Airflow on several hosts is not ready, {complaint}: {said}")

    def _complaint(self) -> str:
        try:
            health = fetch(f"http://127.0.0.1:{self._ports['airflow']}/api/v2/monitor/health")
            states = {name: health[name]["status"] for name in ("scheduler", "dag_processor")}
        except (OSError, ValueError, KeyError) as error:
            return str(error)
        late = [name for name, state in states.items() if state != "healthy"]
        for name, worker in self.workers.items():
            log = worker.log.with_suffix(".out").read_text(errors="replace") + worker.err
            late += [] if f"{name} ready" in log and worker.running else [name]
        return f"{late} not healthy" if late else ""
