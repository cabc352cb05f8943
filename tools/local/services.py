"""What the stack without containers consists of: how each service is started, and how its health is asked."""

import hashlib
import json
import os
import secrets
import shlex
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from tools import properties
from tools.airflow_api import AirflowApi
from tools.local import postgres, processes
from tools.local.supervisor import Notice, Wanted
from tools.loopback import fetch
from tools.paths import PORTS, ROOT, VAR, program, url, write_private
from tools.torchserve import NAMES, TorchServe

TORCHSERVE = VAR / "torchserve"
AIRFLOW = VAR / "airflow"
POSTGRES = postgres.Cluster(VAR / "postgres", PORTS["postgres"])
MODEL_STORE = ROOT / "model_store"
KEY_FILE = TORCHSERVE / "key_file.json"
PASSWORDS = AIRFLOW / "passwords.json"
ADMIN = "admin"
HEALTH = "/api/v2/monitor/health"  # of Airflow's API


@dataclass(frozen=True)
class Service:
    """One process of the stack.

    Attributes:
        name: of its record and its log.
        argv: program and arguments.
        folder: where it runs.
        settings: its variables beside those of `base_environment()`.
        programs: folders that come first on its PATH.
        ports: what must be free before it starts; people are told of the first.
        healthy: asks it, and returns why it is not ready yet, or nothing.
        inputs: files that it reads only at its start: a change in one restarts it.
        configuration: text of a file that `prepare` writes: a change in it restarts the service, too.
        prepare: makes what it needs before it is started.
        needs: ports of PostgreSQL servers that must let clients in before it is started.
        stop_signal: number of the signal that asks it to end.
        base: others need it.
        pulse: address where its heartbeat is told; empty for one without.
    """

    name: str
    argv: list[str]
    folder: Path
    settings: Mapping[str, str]
    programs: list[Path]
    ports: list[int]
    healthy: Callable[[], str]
    inputs: list[Path] = field(default_factory=list)
    configuration: str = ""
    prepare: Callable[[], object] = lambda: None
    needs: list[int] = field(default_factory=list)
    stop_signal: int = signal.SIGTERM
    base: bool = False
    pulse: str = ""

    @property
    def address(self) -> str:
        """Where it listens first; empty for one that does not."""
        return f"127.0.0.1:{self.ports[0]}" if self.ports else ""

    def wanted(self) -> Wanted:
        """Describe it for the supervisor; call `prepare` before."""
        return Wanted(
            name=self.name,
            argv=self.argv,
            environment=self.environment,
            folder=str(self.folder),
            fingerprint=self.fingerprint(),
            ports=tuple(self.ports),
            needs=tuple(self.needs),
            stop_signal=self.stop_signal,
            base=self.base,
            pulse=self.pulse,
        )

    @property
    def environment(self) -> dict[str, str]:
        """All its variables."""
        path = ":".join([*map(str, self.programs), os.environ["PATH"]])
        return {**base_environment(), **self.settings, "PATH": path}

    def fingerprint(self) -> str:
        """Digest what it is started with: two equal ones need no restart.

        What a terminal happens to have in its environment is no part of it.
        """
        programs = [str(folder) for folder in self.programs]
        told = [self.argv, sorted(self.settings.items()), programs, self.configuration]
        digest = hashlib.sha256(json.dumps(told).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def services(java: Path) -> list[Service]:
    """Describe the stack, in the order in which it starts.

    Args:
        java: the Java executable for TorchServe.
    """
    airflow = [
        _airflow("airflow-scheduler", ["scheduler", "--skip-serve-logs"], [], _scheduler_health),
        _airflow("airflow-dag-processor", ["dag-processor"], [], _dag_processor_health),
        _airflow("airflow-api-server", ["api-server"], [PORTS["airflow"]], _api_health),
    ]
    # --skip-serve-logs: the log server listens on every interface, and on one machine the files are at hand.
    return [_torchserve(java), _postgres(), *airflow, _mlflow()]


def notice() -> Notice:
    """Say how people are told that a service has died: as of missed deadlines."""
    return Notice(
        [sys.executable, "-m", "tools.local.notice"],
        {**base_environment(), "AIRFLOW_HOME": str(AIRFLOW), "PYTHONPATH": str(ROOT / "dags")},
    )


def base_environment() -> dict[str, str]:
    """Return this script's variables without make's and without another Airflow's or Python's settings."""
    unwanted = ("AIRFLOW", "PYTHON", "VIRTUAL_ENV", "MLFLOW_", "TS_", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def airflow_settings() -> dict[str, str]:
    """Return the settings of Airflow's processes and, through them, of the stages."""
    secret = _airflow_secrets()
    return {
        **properties.read(ROOT / "airflow" / "airflow.env"),
        "PYTHONPATH": str(ROOT / "dags"),  # deadline callbacks are imported by name, outside any DAG file
        "AIRFLOW_HOME": str(AIRFLOW),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url("airflow", "/execution/"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(PASSWORDS),
        "AIRFLOW__CORE__FERNET_KEY": secret["fernet_key"],
        "AIRFLOW__API_AUTH__JWT_SECRET": secret["jwt_secret"],
        "AIRFLOW__API__SECRET_KEY": secret["secret_key"],
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(PORTS["airflow"]),
        "AIRFLOW__API__BASE_URL": url("airflow"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": POSTGRES.url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(AIRFLOW / "logs"),
        "IMAGEBATCH_OPERATOR": os.environ.get("IMAGEBATCH_OPERATOR", "process"),
        "IMAGEBATCH_DEADLINES": os.environ.get("IMAGEBATCH_DEADLINES", "1"),
        "IMAGEBATCH_BIN": str(program("pipeline_image", "imagebatch")),
        "IMAGEBATCH_TRAIN_BIN": os.environ.get("IMAGEBATCH_TRAIN_BIN")
        or str(program("training", "imagebatch-train")),
        "IMAGEBATCH_TRAIN_SETTINGS": shlex.join(training_folders()),
        "IMAGEBATCH_RELEASE_PAGES": str(VAR / "releases"),
        "MLFLOW_TRACKING_URI": url("mlflow"),
        "IMAGEBATCH_INPUTS": str(VAR / "data"),
        "IMAGEBATCH_ALLOWED_ROOTS": os.environ.get("IMAGEBATCH_ALLOWED_ROOTS", str(VAR / "data")),
        "IMAGEBATCH_RUNS_URI": str(VAR / "runs"),
        "IMAGEBATCH_BASELINE": str(MODEL_STORE / "{model}.baseline.parquet"),
        "IMAGEBATCH_TRACKING_URI": url("mlflow"),
        **model_api(),
    }


def model_api() -> dict[str, str]:
    """Tell a command of `imagebatch` where the stack's model server is."""
    return {
        "IMAGEBATCH_API_URL": url("inference"),
        "IMAGEBATCH_MANAGEMENT_URL": url("management"),
        "IMAGEBATCH_KEY_FILE": str(KEY_FILE),
        "IMAGEBATCH_GOLDEN": str(ROOT / "model_store" / "{model}.golden.json"),
        "IMAGEBATCH_MODEL_STORE": str(MODEL_STORE),
    }


def training_folders() -> list[str]:
    """Tell `imagebatch-train` where this stack keeps what it needs, as Hydra's words."""
    folders = {name: VAR / name for name in ("weights", "data")}
    folders["training"] = VAR / "training" / "${model.name}"  # of each model its own, as without this setting
    folders |= {"handlers": ROOT / "handlers", "model_store": MODEL_STORE}
    tracking = f"tracking.artifacts='{VAR / 'mlflow' / 'artifacts'}'"
    return [*(f"paths.{name}='{folder}'" for name, folder in folders.items()), tracking]


def airflow_api() -> AirflowApi:
    """Log in at the stack's Airflow, as its administrator."""
    return AirflowApi(url("airflow"), ADMIN, password())


def password() -> str:
    """Read the administrator's password, generated at the first call."""
    if not PASSWORDS.exists():
        write_private(PASSWORDS, json.dumps({ADMIN: secrets.token_urlsafe(12)}))
    return str(json.loads(PASSWORDS.read_text())[ADMIN])


def _torchserve(java: Path) -> Service:
    server = TorchServe(
        folder=TORCHSERVE,
        store=MODEL_STORE,
        settings={"load_models": "all", "default_workers_per_model": os.cpu_count() or 1},
        ports=PORTS,
    )
    return Service(
        name="torchserve",
        argv=server.argv,
        folder=TORCHSERVE,
        # Workers are started as `python`: it must be the serving environment's.
        programs=[server.programs, java.parent],
        settings={
            **server.variables(java),
            "OMP_NUM_THREADS": "1",  # as many workers as cores: more threads would only contend
        },
        # Its workers' sockets are files: nothing listens on the port that numbers them.
        ports=[server.ports[name] for name in NAMES if name != "workers"],
        healthy=partial(_torchserve_health, server),
        inputs=sorted(MODEL_STORE.glob("*.mar")),
        configuration=properties.text(server.configuration()),
        prepare=server.configure,
    )


def _torchserve_health(server: TorchServe) -> str:
    try:
        for model in server.manage("/models")["models"]:
            states = [worker["status"] for worker in server.workers(model["modelName"])]
            ready = states.count("READY")
            if not states or ready < len(states):
                return f"{ready} of {len(states)} workers of {model['modelName']} are ready"
    except (OSError, ValueError, KeyError) as error:
        return _reason(error)
    return ""


def _airflow(name: str, command: list[str], ports: list[int], healthy: Callable[[], str]) -> Service:
    return Service(
        name=name,
        argv=[str(program("airflow", "airflow")), *command],
        folder=AIRFLOW,
        programs=[program("airflow", "")],
        settings=airflow_settings(),
        ports=ports,
        healthy=healthy,
        inputs=[ROOT / "airflow" / "uv.lock"],
        needs=[PORTS["postgres"]],
        pulse=url("airflow", HEALTH) if command[0] == "scheduler" else "",
    )


def _postgres() -> Service:
    return Service(
        name="postgres",
        argv=POSTGRES.argv,
        folder=POSTGRES.folder,
        programs=[],
        settings=postgres.VARIABLES,
        ports=[PORTS["postgres"]],
        healthy=POSTGRES.health,
        inputs=[ROOT / "airflow" / "uv.lock"],
        prepare=POSTGRES.prepare,
        stop_signal=postgres.STOP_SIGNAL,
        base=True,
    )


def _airflow_secrets() -> dict[str, str]:
    password()
    path = AIRFLOW / "secrets.json"
    if not path.exists():
        # Each process would otherwise make up its own, and they would refuse each other's tokens.
        made = {name: secrets.token_urlsafe(48) for name in ("jwt_secret", "secret_key")}
        key = secrets.token_bytes(32)
        write_private(path, json.dumps({**made, "fernet_key": _urlsafe(key)}))
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded


def _urlsafe(key: bytes) -> str:
    import base64  # noqa: PLC0415 - once in the life of a stack

    return base64.urlsafe_b64encode(key).decode()


def _component_health(component: str, service: str = "") -> str:
    try:
        said = fetch(url("airflow", HEALTH))[component]
        status, beat = said["status"], said.get(f"latest_{component}_heartbeat")
    except (OSError, ValueError, KeyError) as error:
        return _reason(error)
    if status != "healthy":
        return f"{component} is {status or 'starting'}"
    record = processes.records().get(service)
    # A process that died was healthy, and stays so for Airflow until its last heartbeat is half a minute old.
    if record and (not beat or datetime.fromisoformat(beat).timestamp() < record.since):
        return f"{component} is starting"
    return ""


def _scheduler_health() -> str:
    return _component_health("scheduler", "airflow-scheduler")


def _dag_processor_health() -> str:
    return _component_health("dag_processor", "airflow-dag-processor")


def _api_health() -> str:
    return _component_health("metadatabase")


def _mlflow() -> Service:
    folder = VAR / "mlflow"
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    artifacts = ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    bound = ["--host", "127.0.0.1", "--port", str(PORTS["mlflow"]), "--workers", "1"]
    return Service(
        name="mlflow",
        argv=[str(program("training", "mlflow")), "server", *store, *artifacts, *bound],
        folder=folder,
        programs=[program("training", "")],
        settings={
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a job queue nobody uses, for 1 GB
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        },
        ports=[PORTS["mlflow"]],
        healthy=_mlflow_health,
    )


def _mlflow_health() -> str:
    try:
        with urllib.request.urlopen(url("mlflow", "/health"), timeout=5) as answer:
            answer.read()
    except OSError as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"answers {error.code}"
    if isinstance(error, FileNotFoundError | urllib.error.URLError):
        return "does not answer yet"
    return " ".join(str(error).split())[:100]
