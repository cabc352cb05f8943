"""A compose stack of the test's own: a copy of the checkout, settings of its own, and Airflow's REST API."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import quote

from tools.compose import stack as compose_stack
from tools.paths import ROOT

DAG = "batch_image_inference"
CLEARS = 3
ENDED = ("success", "failed")


@dataclass
class Stack:
    """One compose project.

    Attributes:
        folder: the copy of the checkout that it runs from.
        project: its name.
        port: Airflow's, on loopback.
    """

    folder: Path
    project: str
    port: int
    _token: str = field(default="", repr=False)

    @property
    def settings(self) -> dict[str, str]:
        """The content of its `.env`, read anew: a page's commands may change it."""
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    @property
    def unseen(self) -> str:
        """The name of a container that carries no label of this stack (orphan.py)."""
        return f"{self.project}-unseen"

    @property
    def environment(self) -> dict[str, str]:
        """What a command in its folder sees: nothing that would win over `.env`."""
        engine = {"DOCKER_HOST": os.environ["DOCKER_HOST"]} if os.environ.get("DOCKER_HOST") else {}
        return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), **engine}

    def run(self, *argv: str, check: bool = True, stdin: str | None = None) -> str:
        """Run a program in its folder.

        Returns:
            Its standard output.

        Raises:
            RuntimeError: it failed, with the end of what it said.
        """
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            input=stdin,
            check=False,
        )
        if check and done.returncode:
            tail = " | ".join((done.stdout + done.stderr).strip().splitlines()[-12:])
            raise RuntimeError(f"{' '.join(argv)[:200]} ended with {done.returncode}: {tail}")
        return done.stdout

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose`."""
        return self.run("docker", "compose", *arguments, check=check)

    def up(self) -> None:
        """Start what is not running, and wait until all is healthy."""
        self.compose("up", "--wait", "--wait-timeout", "600", "--detach", "--quiet-pull")
        self._token = ""

    def down(self) -> None:
        """Remove everything that the project made, its data too; first what makes containers of stages."""
        self.compose("kill", "airflow-scheduler", check=False)
        for name in self.run(
            "docker", "ps", "-aq", "--filter", f"label=imagebatch.installation={self.project}"
        ).split():
            self.run("docker", "rm", "-f", "-v", name, check=False)
        self.run("docker", "rm", "-f", self.unseen, check=False)
        self.compose("--profile", "tools", "down", "--volumes", "--timeout", "5", check=False)

    def pid(self, service: str) -> int:
        """Find the first process of a service, as this machine numbers it."""
        container = self.compose("ps", "-q", service).strip()
        return int(self.run("docker", "inspect", "-f", "{{.State.Pid}}", container))

    def stages(self, task: str = "score") -> list[str]:
        """Name the running containers of a task of this stack."""
        labels = (f"imagebatch.installation={self.project}", f"imagebatch.task={task}")
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        return self.run("docker", "ps", "-q", "--no-trunc", *filters).split()

    # Airflow's REST API

    def api(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Call the API as `admin`, logging in as often as it takes.

        Raises:
            RuntimeError: Airflow refuses; its answer is in the message.
            OSError: Airflow does not answer.
        """
        if not self._token:
            self.log_in(self.settings["AIRFLOW_ADMIN_PASSWORD"])
        try:
            return self._fetch(f"/api/v2{path}", body, method, {"Authorization": f"Bearer {self._token}"})
        except urllib.error.HTTPError as error:
            if error.code in {401, 403}:
                self._token = ""
            raise RuntimeError(
                f"{path}: {error.code} {error.read().decode(errors='replace')[:300]}"
            ) from error

    def log_in(self, password: str) -> None:
        """Get a token for `admin`.

        Raises:
            urllib.error.HTTPError: refused, with 401 for a wrong password.
        """
        login = {"username": "admin", "password": password}
        self._token = str(self._fetch("/auth/token", login, None, {})["access_token"])

    def forget_login(self) -> None:
        """Log in anew at the next call."""
        self._token = ""

    def trigger(self, **conf: Any) -> str:
        """Start a run of the batch DAG, and give its id."""
        self.api(f"/dags/{DAG}?update_mask=is_paused", {"is_paused": False}, "PATCH")
        return str(self.api(f"/dags/{DAG}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def state(self, run: str) -> str:
        """Ask for a run's state; `away` while Airflow does not answer."""
        try:
            return str(self.api(f"/dags/{DAG}/dagRuns/{quote(run, safe='')}")["state"])
        except (OSError, RuntimeError):
            return "away"

    def tasks(self, run: str) -> list[dict[str, Any]]:
        """List the task instances of a run, as far as Airflow answers."""
        try:
            path = f"/dags/{DAG}/dagRuns/{quote(run, safe='')}/taskInstances?limit=100"
            return list(self.api(path)["task_instances"])
        except (OSError, RuntimeError):
            return []

    def log(self, run: str, task: dict[str, Any]) -> list[str]:
        """Read the lines of a task instance's last attempt, as far as Airflow has them."""
        index = f"?map_index={task['map_index']}" if task["map_index"] >= 0 else ""
        path = f"/dags/{DAG}/dagRuns/{quote(run, safe='')}/taskInstances/{task['task_id']}"
        try:
            entries = self.api(f"{path}/logs/{max(1, task['try_number'])}{index}")["content"]
        except (OSError, RuntimeError):
            return []
        return [str(entry.get("event", "")) for entry in entries]

    def clear_failed(self, run: str) -> None:
        """What a person does in the UI: clear the failed tasks of a run; again after an error."""
        body = {"dry_run": False, "only_failed": True, "dag_run_id": run, "reset_dag_runs": True}
        for _ in range(CLEARS - 1):
            try:
                self.api(f"/dags/{DAG}/clearTaskInstances", body)
            except RuntimeError as error:
                said = self.compose("logs", "--no-log-prefix", "--tail=40", "airflow-api-server", check=False)
                print(f"not cleared: {error}: {said[-3000:]}", flush=True)
                time.sleep(2)
            else:
                return
        self.api(f"/dags/{DAG}/clearTaskInstances", body)

    def wait(self, run: str, seconds: float) -> str:
        """Wait for a run's end, and give its state then."""
        deadline = time.monotonic() + seconds
        while (state := self.state(run)) not in ENDED and time.monotonic() < deadline:
            time.sleep(2)
        return state

    def in_runs(self, *argv: str) -> str:
        """Run a program of the pipeline image beside the runs, which it can only read."""
        image = self.settings.get("IMAGEBATCH_IMAGE", "imagebatch:latest")
        volume = f"{self.project}-runs:/data/runs:ro"
        return self.run("docker", "run", "--rm", "--network", "none", "-v", volume, image, *argv)

    def _fetch(self, path: str, body: Any, method: str | None, headers: Mapping[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data,
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


def folder_name(run: str) -> str:
    """Name a run's folder (dags/imagebatch_dags/stage.py, for the ids that occur here)."""
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in run)


@contextmanager
def own_stack(project: str, *, keep: bool = False) -> Iterator[Stack]:
    """Bring up a stack from a copy of the checkout, and take it away again; what it needs is made if missing.

    Args:
        project: name of the compose project.
        keep: leave it running (for work on the tests themselves).
    """
    compose_stack.material()
    compose_stack.build_missing()
    folder = Path(mkdtemp(prefix=f"{project}-"))
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in files.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    stack = Stack(folder, project, compose_stack.free_port())
    _write_settings(stack)
    stack.down()  # what an interrupted test may have left
    try:
        stack.up()
        yield stack
    finally:
        if not keep:
            stack.down()
            shutil.rmtree(folder, ignore_errors=True)


def _write_settings(stack: Stack) -> None:
    subprocess.run(
        [sys.executable, "-m", "tools.compose.env"], cwd=stack.folder, check=True, capture_output=True
    )
    own = {
        "COMPOSE_PROJECT_NAME": stack.project,
        "AIRFLOW_PORT": str(stack.port),
        "MLFLOW_PORT": str(compose_stack.free_port()),
        "IMAGEBATCH_DOCKER_INPUTS": str(ROOT / "var" / "data"),
        "IMAGEBATCH_DOCKER_MODELS": str(ROOT / "model_store"),
    }
    images = {name: value for name, value in os.environ.items() if name.endswith("_IMAGE")}
    images = compose_stack.third_party() | images
    with (stack.folder / ".env").open("a") as stream:
        stream.writelines(f"{name}={value}\n" for name, value in (images | own).items())
