"""The same done to runs on a server that speaks the Open Inference Protocol: a real MLServer."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.handler_archives import LABELS
from tests.support.model_server import Wrong
from tests.support.relay import Relay
from tests.system.chaos import crashes, disks, overload, replies, serving
from tests.system.chaos.ground import Ground
from tests.system.chaos.replies import endure
from tests.system.chaos.runs import Result, Run
from tests.system.conformance.servers import MLServer
from tests.system.kit.scenario import Scenario, described
from tools.paths import program, run

PART = "oip"


class Served:
    """A real MLServer, as the scenarios use a server.

    Args:
        folder: For its files.
        model: An unpacked archive.
    """

    management = "http://127.0.0.1:9"
    key_file = ""

    def __init__(self, folder: Path, model: Path) -> None:
        self._server = MLServer(folder, model, LABELS)
        self.start()

    @property
    def inference(self) -> str:
        """Where it answers."""
        return self._server.url

    def start(self) -> None:
        """Start it and wait until its model is ready."""
        self._up = True
        self._server.start()

    def kill(self) -> None:
        """Kill it with all its processes."""
        self._up = False
        self._server.kill()

    def ensure(self) -> None:
        """Start it again if a failed scenario left it dead."""
        if not self._up:
            self.start()

    def wait_until_ready(self) -> None:
        """It is, once it is started."""


class OipGround(Ground):
    """As `Ground`, with drawn images and an MLServer, so that no demo is needed."""

    def __init__(self, folder: Path, *, images: int, storm_seconds: float) -> None:
        folder.mkdir()
        self.folder, self.logs, self.storm_seconds = folder, folder / "logs", storm_seconds
        python = program("pipeline_image", "python")
        run([python, "-m", "tests.system.chaos.material", str(folder), str(images)], quiet=True)
        self.photographs = folder / "photographs"
        self.ids = sorted(path.name for path in self.photographs.iterdir())
        self.server = Served(folder / "mlserver", folder / "unpacked")  # type: ignore[assignment]  # as one
        self.calm_csv = b""
        self.calm_seconds = 0.0

    def run(self, *asked: object, **more: object) -> Run:
        """A run over all images that has not begun."""
        begun = super().run(*asked, **more)  # type: ignore[arg-type]  # whatever the scenario gives
        begun.environment = {
            **begun.environment,
            "IMAGEBATCH_BACKEND": "oip",
            "IMAGEBATCH_MAX_CLASS_SHARE": "1",  # the model was never trained
        }
        return begun


def wrong_count(ground: Ground) -> Result:
    """A third of the replies lack an answer."""

    def spoil(reply: Wrong) -> Wrong:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        packed = headers.pop("content-encoding", "") == "gzip"
        content = json.loads(gzip.decompress(reply.body) if packed else reply.body)
        output = content["outputs"][0]
        images, classes = output["shape"]
        output["shape"] = [images - 1, classes]
        output["data"] = output["data"][:-classes]
        return Wrong(200, json.dumps(content).encode(), headers)

    return endure(ground, "wrong-count", spoil)


def server_killed(ground: Ground) -> Result:
    """MLServer is killed (SIGKILL) in the middle of the run, and started again."""
    with Relay(ground.server.inference) as relay:
        disturbed = ground.prepared("server-killed", api_url=relay.url)
        scoring = disturbed.start_score()
        serving.wait_for_requests(relay, 16, scoring)
        ground.server.kill()
        ground.server.start()
        disturbed.end(scoring)
    return disturbed.settle("the same model answered again")


def _of(act: Callable[[Ground], Result]) -> Scenario:
    known = Scenario(act=act, **described(act))
    return replace(known, name=f"{known.name}@{PART}", part=PART)


SCENARIOS = [
    _of(act)
    for act in (
        wrong_count,
        replies.reply_for_others,
        replies.truncated_reply,
        replies.html_page,
        replies.html_page_for_predictions,
        replies.connection_reset,
        overload.slow_server,
        overload.storm_of_503,
        server_killed,
        crashes.scorer_killed,
        crashes.two_scorers,
        crashes.stopped_scorer,
        crashes.clock_moved_back,
        disks.disk_full,
        disks.read_only,
    )
]
