"""A compose stack of the test's own: a copy of the checkout, settings of its own, and Airflow's REST API."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar
from urllib.parse import quote

from tools.airflow_api import ENDED, AirflowApi, AirflowError, Run
from tools.compose import stack as compose_stack
from tools.paths import ROOT

DAG = "batch_image_inference"
CLEARS = 3

Answer = TypeVar("Answer")


@dataclass
class Stack(compose_stack.Stack):
    """One compose project in a checkout of its own, where the pages' commands can be run as they stand.

    Attributes:
        folder: that checkout.
    """

    folder: Path
    _login: AirflowApi | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        """Its settings, where the pages' commands look for them."""
        return self.folder / ".env"

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

    def argv(self, *arguments: str) -> list[str]:
        """Give the command `docker compose`, as a person gives it in that checkout."""
        return ["docker", "compose", *arguments]

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` on it; RuntimeError if that fails."""
        return self.run(*self.argv(*arguments), check=check)

    def up(self) -> None:
        """Start what is not running, and wait until all is healthy."""
        self.compose("up", "--wait", "--wait-timeout", "600", "--detach", "--quiet-pull")
        self.forget_login()

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

    def ask(self, question: Callable[[AirflowApi], Answer]) -> Answer:
        """Ask Airflow as `admin`, logging in as often as it takes.

        Raises:
            AirflowError: Airflow refuses; its answer is in the message.
            OSError: Airflow does not answer.
        """
        self._login = self._login or self.log_in()
        try:
            return question(self._login)
        except AirflowError as error:
            if error.status in {401, 403}:
                self._login = None
            raise

    def api(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Make one call, of a path below the API's version, as `ask` does."""
        return self.ask(lambda api: api.call(f"/api/v2{path}", body, method))

    def forget_login(self) -> None:
        """Log in anew at the next call."""
        self._login = None

    def trigger(self, **conf: Any) -> str:
        """Start a run of the batch DAG, and give its id."""
        return self.ask(lambda api: api.trigger(DAG, conf)).run_id

    def state(self, run: str) -> str:
        """Ask for a run's state; `away` while Airflow does not answer."""
        try:
            return self.ask(lambda api: api.state(Run(DAG, run)))
        except (OSError, AirflowError):
            return "away"

    def tasks(self, run: str) -> list[dict[str, Any]]:
        """List the task instances of a run, as far as Airflow answers."""
        try:
            return self.ask(lambda api: api.tasks(Run(DAG, run)))
        except (OSError, AirflowError):
            return []

    def log(self, run: str, task: dict[str, Any]) -> list[str]:
        """Read the lines of a task instance's last attempt, as far as Airflow has them."""
        try:
            return self.ask(lambda api: api.log_lines(Run(DAG, run), task))
        except (OSError, AirflowError):
            return []

    def clear_failed(self, run: str) -> None:
        """What a person does in the UI: clear the failed tasks of a run; again after an error."""
        body = {"dry_run": False, "only_failed": True, "dag_run_id": run, "reset_dag_runs": True}
        for _ in range(CLEARS - 1):
            try:
                self.api(f"/dags/{DAG}/clearTaskInstances", body)
            except AirflowError as error:
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


def folder_name(run: str) -> str:
    """Name a run's folder (dags/imagebatch_dags/run_name.py, for the ids that occur here)."""
    return f"{DAG}.-{quote(run).replace('.', '%2E').replace('%', '.')}"


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
    stack = Stack(project, folder)
    own = {
        "COMPOSE_PROJECT_NAME": project,
        "IMAGEBATCH_DOCKER_INPUTS": str(ROOT / "var" / "data"),
        "IMAGEBATCH_DOCKER_MODELS": str(ROOT / "model_store"),
    }
    images = {name: value for name, value in os.environ.items() if name.endswith("_IMAGE")}
    stack.prepare(images | own, compose_stack.THIRD_PARTY)
    stack.down()  # what an interrupted test may have left
    try:
        stack.up()
        yield stack
    finally:
        if not keep:
            stack.down()
            shutil.rmtree(folder, ignore_errors=True)
