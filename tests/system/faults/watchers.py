"""The programs that watch, on loopback: Prometheus, Alertmanager and Pushgateway, and whom they tell."""

import contextlib
import json
import os
import shutil
import time
import urllib.parse
from pathlib import Path
from typing import Any

from tests.support.children import Child, last_line
from tests.system.faults.render import PUSH_SECONDS, render
from tests.system.faults.sinks import Mailbox, Webhooks
from tools.local.services import base_environment
from tools.loopback import ask, free_ports
from tools.paths import fail, program

WATCHING = ("prometheus", "prometheus-alertmanager", "prometheus-pushgateway")


class Watchers:
    """Prometheus, Alertmanager and Pushgateway, with the product's rules and routes in a hurry.

    Args:
        folder: for configurations, logs, data and runs.
        model_metrics: port at which the model server's metrics are to be had.

    Attributes:
        webhooks: What Alertmanager has told.
        mailbox: What it has mailed.
        api: Settings by which stages reach the model server.
    """

    def __init__(self, folder: Path, model_metrics: int) -> None:
        self.folder = folder
        self.api: dict[str, object] = {}
        self.webhooks, self.mailbox = Webhooks(), Mailbox()
        names = ("prometheus", "alertmanager", "pushgateway", "collectd", "statsd")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.ports |= {"torchserve": model_metrics, "smtp": self.mailbox.port}
        render(folder, self.ports, self.webhooks.url)
        self.url = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}

    def environment(self, pipeline: str, **settings: object) -> dict[str, str]:
        """Variables of a stage that pushes as `pipeline`."""
        mine = {name: value for name, value in base_environment().items() if "IMAGEBATCH" not in name}
        shown = {
            "runs_uri": self.folder / "runs",
            **self.api,
            "metrics_url": self.url["pushgateway"],
            "metrics_interval": PUSH_SECONDS,
            "pipeline": pipeline,
            **settings,
        }
        return mine | {f"IMAGEBATCH_{name.upper()}": str(value) for name, value in shown.items()}

    def stage(self, pipeline: str, *arguments: object, **settings: object) -> Child:
        """Start a command of imagebatch."""
        log = self.folder / "logs" / f"{pipeline}-{arguments[0]}-{time.monotonic_ns()}.log"
        argv = [str(program("pipeline_image", "imagebatch")), *map(str, arguments)]
        return Child(argv, environment=self.environment(pipeline, **settings), log=log)

    def start(self) -> None:
        """Start Pushgateway and Alertmanager."""
        self.start_pushgateway()
        self.start_program(
            "prometheus-alertmanager",
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.ports['alertmanager']}",
            "--cluster.listen-address=",
        )

    def start_prometheus(self, targets: int) -> None:
        """Start it, and wait until it reads so many targets."""
        self.start_program(
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
        )
        self._wait_for_targets(targets)

    def start_pushgateway(self) -> None:
        """Start it; it remembers what it was pushed before."""
        self.pushgateway = self.start_program(
            "prometheus-pushgateway",
            f"--web.listen-address=127.0.0.1:{self.ports['pushgateway']}",
            f"--persistence.file={self.folder / 'pushed'}",
            "--persistence.interval=1s",
        )

    def forget(self, pipeline: str) -> None:
        """Take a pipeline's metrics off the Pushgateway: its scenario is over."""
        groups = json.loads(ask(f"{self.url['pushgateway']}/api/v1/metrics"))["data"]
        for labels in [group["labels"] for group in groups]:
            if labels.get("pipeline") == pipeline:
                rest = "".join(
                    f"/{name}/{labels[name]}" for name in ("pipeline", "shard", "stage") if name in labels
                )
                ask(f"{self.url['pushgateway']}/metrics/job/{labels['job']}{rest}", method="DELETE")

    def query(self, expression: str, start: float, end: float) -> list[Any]:
        """Series that an expression gives between two times, in steps of a second."""
        asked = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": 1})
        answer = json.loads(ask(f"{self.url['prometheus']}/api/v1/query_range?{asked}"))
        series: list[Any] = answer["data"]["result"]
        return series

    def close(self) -> None:
        """Stop what is not a process; `end_all` of children stops the others."""
        self.webhooks.close()
        self.mailbox.close()

    def start_program(self, name: str, *arguments: str) -> Child:
        """Start a program of the machine."""
        log = self.folder / "logs" / f"{name}.log"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        return Child([str(shutil.which(name)), *arguments], environment=environment, log=log)

    def _wait_for_targets(self, wanted: int) -> None:
        deadline = time.monotonic() + 60
        up = 0
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                now = time.time()
                up = len([one for one in self.query("up == 1", now - 2, now) if one["values"]])
                if up >= wanted:
                    return
            time.sleep(0.3)
        logs = {path.name: last_line(path.read_text()) for path in (self.folder / "logs").glob("*.log")}
        fail(f"{up} of {wanted} targets are up; last lines: {logs}", 1)
