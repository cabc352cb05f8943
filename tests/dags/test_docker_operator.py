import gc
import inspect
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from imagebatch_dags.docker_operator import DockerStageOperator, stage_container

# docker-py leaves the attached stream's socket to the garbage collector, which complains.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
RESULT = '{"stage": "score", "predicted": 5}'
STDOUT, STDERR = 1, 2


class Engine(BaseHTTPRequestHandler):
    """The calls of the Docker Engine's API that one container's life takes, spoken over real HTTP."""

    server: "EngineServer"

    def do_GET(self) -> None:
        if self.path.endswith("/_ping"):
            self._send(b"OK", "text/plain")
        elif "/images/json" in self.path:
            self._answer([{"Id": "sha256:1"}])
        elif self.path.endswith("/version"):
            self._answer({"ApiVersion": "1.43"})
        else:
            state = {"ExitCode": self.server.exit_code, "OOMKilled": self.server.out_of_memory}
            self._answer({"State": state, "Config": {"Tty": False}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.calls.append(("POST", self.path.split("?")[0].rsplit("/", 1)[-1]))
        if "/containers/create" in self.path:
            self.server.created.append(json.loads(body))
            self._answer({"Id": "c1", "Warnings": []}, 201)
        elif "/attach" in self.path:
            self._stream()
        elif "/start" in self.path:
            self._answer(None, 204)
            self.server.started.set()
        elif "/wait" in self.path:
            self._answer({"StatusCode": self.server.exit_code})
        else:
            self._answer(None, 204)

    def do_DELETE(self) -> None:
        self.server.calls.append(("DELETE", self.path.split("?")[0].rsplit("/", 1)[-1]))
        self._answer(None, 204)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.raw-stream")
        self.end_headers()
        self.server.started.wait(10)  # a container writes nothing before it is started
        for kind, text in self.server.output:
            self.wfile.write(struct.pack(">BxxxL", kind, len(text)) + text)

    def _answer(self, content: Any, status: int = 200) -> None:
        self._send(b"" if content is None else json.dumps(content).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


class EngineServer(ThreadingHTTPServer):
    """An engine whose next container writes `output` and ends with `exit_code`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Engine)
        self.calls: list[tuple[str, str]] = []
        self.created: list[dict[str, Any]] = []
        self.started = threading.Event()
        self.exit_code = 0
        self.out_of_memory = False
        self.output = [(STDERR, b"log\n"), (STDOUT, f"{RESULT}\n".encode()), (STDERR, b"last words\n")]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineServer]:
    """Start an engine on loopback, and point Docker's clients at it."""
    with EngineServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def stage(engine: EngineServer) -> Iterator[DockerStageOperator]:
    """Build a scoring stage for one shard."""
    assert engine
    operator = DockerStageOperator(
        task_id="score", command=["score", "--run-id=r"], shard=3, environment={"A": "b"}, **stage_container()
    )
    yield operator
    if operator.hook.client_created:
        operator.cli.close()
    gc.collect()  # here, where the complaint is expected, and not in some later test


def test_every_argument_is_one_that_the_real_operator_has() -> None:
    """An upgrade of the provider that renames an argument is noticed here."""
    assert set(stage_container()) <= set(inspect.signature(DockerOperator.__init__).parameters)


def test_the_container_is_confined(engine: EngineServer, stage: DockerStageOperator) -> None:
    """The engine is asked for an ordinary user, bounded memory, read-only inputs, writable runs only."""
    stage.execute({})
    (asked,) = engine.created
    host = asked["HostConfig"]
    assert asked["Cmd"] == ["score", "--run-id=r", "--shard=3"]
    assert asked["User"] == "10001:10001"
    assert asked["Env"] == ["A=b"]
    assert host["Memory"] == 2 * 2**30
    assert host["NetworkMode"] == "imagebatch"
    assert not host.get("Privileged")
    assert not host.get("CapAdd")
    mounts = {
        mount["Target"]: (mount["Source"], mount["Type"], mount["ReadOnly"]) for mount in host["Mounts"]
    }
    assert mounts == {
        "/data/inputs": ("imagebatch-inputs", "volume", True),
        "/run/imagebatch/keys": ("imagebatch-keys", "volume", True),
        "/data/runs": ("imagebatch-runs", "volume", False),
    }


def test_a_folder_of_the_engines_machine_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An absolute path is a bind mount, any other name a volume."""
    monkeypatch.setenv("IMAGEBATCH_DOCKER_INPUTS", "/srv/photographs")
    mounts = {mount["Target"]: mount for mount in stage_container()["mounts"]}
    assert (mounts["/data/inputs"]["Type"], mounts["/data/inputs"]["Source"]) == ("bind", "/srv/photographs")
    assert mounts["/data/runs"]["Type"] == "volume"


def test_the_result_is_the_json_line_wherever_it_stands(
    engine: EngineServer, stage: DockerStageOperator
) -> None:
    """A log line after the result does not hide it, and the container is removed."""
    assert stage.execute({}) == json.loads(RESULT)
    assert engine.calls[-1] == ("DELETE", "c1")


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        *((code, AirflowFailException) for code in (2, 65, 78)),
        (99, AirflowSkipException),
        *((code, AirflowException) for code in (69, 74, 75, 1)),
    ],
)
def test_exit_codes_mean_what_they_mean_for_a_process(
    engine: EngineServer, stage: DockerStageOperator, code: int, verdict: type[Exception]
) -> None:
    """The verdict on a container is the one on a process, and the container is removed all the same."""
    engine.exit_code = code
    with pytest.raises(AirflowException) as raised:
        stage.execute({})
    assert type(raised.value) is verdict
    assert code == 99 or "last words" in str(raised.value)
    assert engine.calls[-1] == ("DELETE", "c1")


def test_running_out_of_memory_is_named_and_retried(engine: EngineServer, stage: DockerStageOperator) -> None:
    """The engine knows why a container was killed; the message says it."""
    engine.exit_code, engine.out_of_memory = 137, True
    with pytest.raises(AirflowException, match="out of memory") as raised:
        stage.execute({})
    assert type(raised.value) is AirflowException


def test_stopping_the_task_stops_the_container(engine: EngineServer, stage: DockerStageOperator) -> None:
    """on_kill asks the engine to stop the container of this very task."""
    stage.execute({})
    stage.on_kill()
    assert ("POST", "stop") in engine.calls
