"""The compose stack beside whatever else runs on this machine: a project, settings and ports of its own.

`python3.11 -m tools.compose.stack up` and `down` for people and tests; `--project` names it. `up` builds what
is missing: the images, and stand-ins for PostgreSQL and HAProxy where no registry can be reached. `down`
removes its volumes too.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tools import properties
from tools.airflow_api import AirflowApi
from tools.compose import env, images
from tools.local import demo
from tools.loopback import free_ports
from tools.paths import ROOT, VAR, fail, run, say, step

ThirdParty: TypeAlias = tuple[str, str]  # an image that is not ours, and the stand-in for it

# By variable of docker-compose.yaml: the image that it names by default, and what stands in for it.
THIRD_PARTY: dict[str, ThirdParty] = {
    "POSTGRES_IMAGE": ("postgres:17", "postgres"),
    "HAPROXY_IMAGE": ("haproxy:3.2", "haproxy"),
}
# The same for the profile `monitoring`, and the settings that switch it on (docs/how-to/monitoring.md).
WATCHERS: dict[str, ThirdParty] = {
    "PROMETHEUS_IMAGE": ("prom/prometheus:v3.5.0", "prometheus"),
    "ALERTMANAGER_IMAGE": ("prom/alertmanager:v0.28.1", "alertmanager"),
    "PUSHGATEWAY_IMAGE": ("prom/pushgateway:v1.11.1", "pushgateway"),
    "STATSD_EXPORTER_IMAGE": ("prom/statsd-exporter:v0.28.0", "statsd"),
}
# The same for the profile `celery`, and what makes tasks its worker's (docs/how-to/several-machines.md).
BROKER: dict[str, ThirdParty] = {"REDIS_IMAGE": ("redis:7.4", "redis")}
EVERYBODY = THIRD_PARTY | WATCHERS | BROKER
SEVERAL = {"COMPOSE_PROFILES": "celery", "IMAGEBATCH_EXECUTOR": "CeleryExecutor"}
WATCHED = {
    "COMPOSE_PROFILES": "celery,monitoring",  # a worker that waits, with the executor as ever
    "IMAGEBATCH_METRICS_URL": "http://pushgateway:9091",
    "AIRFLOW_STATSD": "True",
}
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")
TOOL = ("run", "--rm", "--no-deps", "-T", "imagebatch")
PULL_SECONDS = 300.0
MODEL = "solar-cells"


@dataclass
class Stack:
    """One project of docker-compose.yaml.

    Attributes:
        project: its name.
    """

    project: str

    @property
    def file(self) -> Path:
        """Its settings, in place of `.env`."""
        return ROOT / "var" / "compose" / f"{self.project}.env"

    @property
    def settings(self) -> dict[str, str]:
        """What its settings say, read anew: a person's commands may change it."""
        return properties.read(self.file)

    @property
    def airflow(self) -> str:
        """The address of its Airflow."""
        return f"http://127.0.0.1:{self.settings['AIRFLOW_PORT']}"

    def log_in(self, user: str = "admin") -> AirflowApi:
        """Log in at its Airflow.

        Args:
            user: `admin` or `viewer`.
        """
        return AirflowApi(self.airflow, user, self.settings[f"AIRFLOW_{user.upper()}_PASSWORD"])

    def argv(self, *arguments: str) -> list[str]:
        """Give the command `docker compose` on it, to be run in its checkout."""
        return ["docker", "compose", "-p", self.project, "--env-file", str(self.file), *arguments]

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` on it; ends this script if that fails."""
        return run([*self.argv(*arguments)], quiet=True)

    def tool(self, *command: str) -> str:
        """Run a command in the stages' image, with the stack's runs and inputs."""
        return self.compose(*TOOL, *command)

    def read(self, path: str) -> bytes:
        """Read a file of its runs, byte for byte."""
        done = subprocess.run(self.argv(*TOOL, "cat", path), cwd=ROOT, capture_output=True, check=False)
        if done.returncode:
            fail(f"{path}: {done.stderr.decode(errors='replace').strip()[-300:]}", 1)
        return done.stdout

    def prepare(self, own: Mapping[str, str] = WATCHED, wanted: Mapping[str, ThirdParty] = EVERYBODY) -> None:
        """Write its settings, with ports that are free now and images that are there.

        Args:
            own: settings that `make env` leaves out; default: the profile `monitoring`.
            wanted: images that are not ours, by variable, see `third_party`.
        """
        env.main(self.file)
        known = self.settings
        missing = [name for name in PORTS if name not in known]
        ports = dict(zip(missing, map(str, free_ports(len(missing))), strict=True))
        env.write(self.file, {**known, **ports, **third_party(wanted), **own})

    def up(self) -> None:
        """Start it and wait until everything is healthy."""
        self.compose("up", "--wait", "--quiet-pull")

    def down(self) -> None:
        """Stop it and remove all that belongs to it, volumes included."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def left(self) -> list[str]:
        """List what is left of it on the engine: containers, volumes, networks."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = (["ps", "--all"], ["volume", "ls"], ["network", "ls"])
        found = [run(["docker", *kind, "--quiet", "--filter", label], quiet=True).split() for kind in kinds]
        return [name for names in found for name in names]


def main() -> int:
    """Run one verb."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("verb", choices=("up", "down"))
    options.add_argument("--project", default="imagebatch-test")
    chosen = options.parse_args()
    stack = Stack(chosen.project)
    if chosen.verb == "down":
        if stack.file.exists():
            stack.down()
        return 0
    build_missing()
    stack.prepare()
    with step("up"):
        stack.up()
    say(f"Airflow  {stack.airflow}  settings and passwords in {stack.file}")
    return 0


def material() -> None:
    """Make what is missing of the demo's photographs and archive."""
    for verb in needed(VAR / "data" / "solar-cells" / "images", ROOT / "model_store"):
        with step(f"training: {verb}"):
            demo.train(verb)


def needed(photographs: Path, store: Path) -> list[str]:
    """Tell which verbs of `imagebatch-train` have to run first.

    The two can be apart: a demo in a folder of its own (`IMAGEBATCH_VAR`) leaves its archive in the model
    store of the checkout, and the photographs in that folder.

    Args:
        photographs: folder that the stages read.
        store: the model store.
    """
    if not all((store / f"{MODEL}.{kind}").is_file() for kind in ("mar", "golden.json")):
        return list(demo.TRAINING)
    return [] if photographs.is_dir() else ["data"]


def build_missing() -> None:
    """Build those of the stack's images that the engine does not have."""
    for image in images.IMAGES:
        if image.name in images.SERVED and not present(f"{image.name}:latest"):
            images.build(image)


def third_party(wanted: Mapping[str, ThirdParty]) -> dict[str, str]:
    """Find an image for each service that is not ours.

    Args:
        wanted: name and stand-in of each, by variable.

    Returns:
        Values of the variables in docker-compose.yaml; nothing for an image that is there or can be pulled.
    """
    chosen = {}
    for variable, (name, stand_in) in wanted.items():
        if os.environ.get(variable):
            chosen[variable] = os.environ[variable]
        elif not present(name) and not pulled(name):
            tag = f"imagebatch-standin-{stand_in}:latest"
            folder = f"tests/system/compose/standins/{stand_in}"
            run(["docker", "build", "--quiet", "-t", tag, folder], quiet=True)
            chosen[variable] = tag
    return chosen


def present(image: str) -> bool:
    """Tell whether the engine has an image."""
    return _succeeds(["docker", "image", "inspect", image], 30)


def pulled(image: str) -> bool:
    """Try to pull an image."""
    return _succeeds(["docker", "pull", "--quiet", image], PULL_SECONDS)


def _succeeds(argv: list[str], seconds: float) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=seconds, check=False).returncode == 0
    except FileNotFoundError:
        fail("docker is not installed: the stack needs Docker Engine 25 and compose 2.24, or newer")
    except subprocess.TimeoutExpired:
        return False


if __name__ == "__main__":
    sys.exit(main())
