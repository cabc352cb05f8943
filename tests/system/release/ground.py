"""A TorchServe, a registry and the images of a night, for releases of one model under a batch."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebatch_training.cli import main

from tests.support.registry import MLflowServer
from tests.support.relay import Asked, Relay
from tests.support.serving import Running
from tools.paths import program

IMAGEBATCH = str(program("pipeline_image", "imagebatch"))
FIRST = 20  # requests of a run before something happens


@dataclass(frozen=True)
class Ground:
    """A server, a registry, and images of a night.

    Attributes:
        root: Of the model store, the runs and all that a training writes.
        words: What a person would type of the training.
        name: Of the model.
    """

    root: Path
    running: Running
    registry: MLflowServer
    night: Path
    words: list[str]
    name: str

    @property
    def reference(self) -> str:
        """The model of a nightly run."""
        return f"models:/{self.name}@champion"

    def release(self, *more: str) -> int:
        """`imagebatch-train release` with this server, in this process."""
        server = self.running.server
        where = ["--management-url", server.management, "--api-url", server.inference]
        where += ["--key-file", str(server.key_file), "--workers", "1", "--json"]
        return main(["release", *where, *self.words, *more])

    def start(self, *arguments: str, api: str = "") -> "subprocess.Popen[str]":
        """`imagebatch` as a process of its own."""
        own = self.running.environment() | {
            "IMAGEBATCH_RUNS_URI": str(self.root / "runs"),
            "IMAGEBATCH_TRACKING_URI": self.registry.url,
            "IMAGEBATCH_SHARED_MEMORY": "false",
        }
        own |= {"IMAGEBATCH_API_URL": api} if api else {}
        return subprocess.Popen(
            [IMAGEBATCH, *arguments],
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def do(self, *arguments: str) -> str:
        """`imagebatch`, to its good end; returns its last line."""
        process = self.start(*arguments)
        told, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return told.strip().rpartition("\n")[2]

    def prepare(self, run: str, *more: str) -> dict[str, Any]:
        """Begins a run of the champion; returns its run.json."""
        night = ("--input", str(self.night), "--model", self.reference, "--shard-size", "300")
        self.do("preprocess", "--run-id", run, *night, *more)
        found: dict[str, Any] = json.loads((self.root / "runs" / run / "run.json").read_text())
        return found

    def table(self, run: str) -> bytes:
        """Ends a scored run; returns its table."""
        self.do("postprocess", "--run-id", run)
        self.do("report", "--run-id", run)
        return (self.root / "runs" / run / "output/predictions.csv").read_bytes()

    def amid(self, run: str, act: Callable[[], None]) -> None:
        """Scores a run slowly, acts in the middle of it, and lets it end."""
        acted = threading.Event()

        def before(asked: Asked) -> None:
            if asked.number > FIRST:
                acted.wait(0.3)

        with Relay(self.running.server.inference, before=before) as relay:
            slow = ("--pack-size", "1", "--in-flight", "1")
            scoring = self.start("score", "--run-id", run, *slow, api=relay.url)
            try:
                while relay.requests < FIRST:
                    assert scoring.poll() is None, scoring.communicate()[1]
                    time.sleep(0.02)
                act()
                assert scoring.poll() is None, "the run was over before the release was"
            finally:
                acted.set()
            _, said = scoring.communicate(timeout=300)
            assert scoring.returncode == 0, said

    def champion(self) -> str:
        """The version that the registry's alias names."""
        number = self.registry.named(self.name, "champion")
        found = self.registry.ask("GET", "model-versions/get", name=self.name, version=number)
        tags = {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}
        return str(tags["imagebatch.version"])
