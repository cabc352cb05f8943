import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.timeout import timeout
from docker.errors import NotFound
from imagebatch_dags.container import stage_container
from imagebatch_dags.container_logs import EngineAwayError
from imagebatch_dags.docker_operator import DockerStageOperator

from tests.dags.engine import IMAGE

Stage = Callable[..., DockerStageOperator]
LABELS = {
    "imagebatch.dag": "batch",
    "imagebatch.dag-run": "manual__2026-01-31T02:00:00+00:00",
    "imagebatch.run": "batch.-manual__2026-01-31T02.3A00.3A00.2B00.3A00",
    "imagebatch.task": "score",
    "imagebatch.map-index": "3",
    "imagebatch.attempt": "2",
}


@pytest.fixture
def stage(client: docker.APIClient, own: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Build a stage from a script, as the DAG would build it."""
    monkeypatch.setenv("IMAGEBATCH_DOCKER_IMAGE", IMAGE)
    monkeypatch.setenv("IMAGEBATCH_DOCKER_NETWORK", "none")
    monkeypatch.setenv("IMAGEBATCH_DOCKER_MEMORY", "64m")
    monkeypatch.setenv("IMAGEBATCH_DOCKER_CPUS", "0.5")
    for mount in ("INPUTS", "MODELS", "RUNS", "KEYS"):
        monkeypatch.setenv(f"IMAGEBATCH_DOCKER_{mount}", f"{own}-{mount.lower()}")
    made: list[DockerStageOperator] = []

    def make(script: str, **changed: Any) -> DockerStageOperator:
        labels = LABELS | {"imagebatch.installation": own} | changed.pop("labels", {})
        arguments = stage_container() | {"labels": labels} | changed
        made.append(
            DockerStageOperator(task_id="score", command=[script], environment={"A": "b"}, **arguments)
        )
        return made[-1]

    yield make
    for operator in made:
        if operator.hook.client_created:
            operator.cli.close()
    for mount in ("inputs", "models", "runs", "keys"):
        with contextlib.suppress(NotFound):  # a test that stops early has made none
            client.remove_volume(f"{own}-{mount}", force=True)


def left(client: docker.APIClient, own: str) -> list[dict[str, Any]]:
    """List the containers of a test that are still there, running or not."""
    found: list[dict[str, Any]] = client.containers(
        all=True, filters={"label": f"imagebatch.installation={own}"}
    )
    return found


CONFINED = """
import json, os, pathlib
def denied(path):
    try:
        pathlib.Path(path, "x").write_text("x")
    except OSError as error:
        return error.errno
    return 0
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps({"stage": "score", "uid": os.getuid(), "caps": status["CapBnd"], "new": status["NoNewPrivs"],
    "root": denied("/usr"), "inputs": denied("/data/inputs"), "keys": denied("/run/imagebatch/keys"),
    "tmp": denied("/tmp"), "A": os.environ["A"],
    "memory": [path.read_text() for name in ("memory.max", "memory/memory.limit_in_bytes")
        if (path := pathlib.Path("/sys/fs/cgroup", name)).exists()][0],
    "tmpfs": [line.split()[3] for line in open("/proc/mounts") if line.split()[1] == "/tmp"][0]}))
"""


def test_the_container_is_confined(stage: Stage) -> None:
    """As seen from inside: no capability, no way to gain one, only the runs and /tmp can be written."""
    seen = stage(CONFINED).execute({})
    assert seen is not None
    assert (seen["uid"], int(seen["caps"], 16), seen["new"]) == (10001, 0, "1")
    assert (seen["root"], seen["inputs"], seen["keys"]) == (30, 30, 30)  # EROFS
    assert seen["tmp"] == 0
    assert {"noexec", "nosuid", "nodev"} <= set(seen["tmpfs"].split(","))
    assert int(seen["memory"]) == 64 * 2**20
    assert seen["A"] == "b"


def test_secrets_go_to_the_container_and_to_no_page(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read when it starts: no operator holds them, and one that is missing is told."""
    told = 'import json, os; print(json.dumps({"stage": "score", "key": len(os.environ["STORE_KEY"])}))'
    monkeypatch.setenv("IMAGEBATCH_DOCKER_SECRETS", "STORE_KEY, DATABASE")
    monkeypatch.setenv("STORE_KEY", "5ec4e7")
    operator = stage(told)
    with pytest.raises(AirflowFailException, match="names DATABASE: set it for Airflow's workers"):
        operator.execute({})
    monkeypatch.setenv("DATABASE", "")
    assert operator.execute({}) == {"stage": "score", "key": 6}
    assert "5ec4e7" not in str(vars(operator))


def test_the_engine_knows_the_limits_and_whose_it_is(
    client: docker.APIClient, stage: Stage, own: str
) -> None:
    """While it runs the container shows its labels, CPU quota, process limit and writable runs only."""
    operator = stage("import time; time.sleep(60)")
    thread = threading.Thread(target=lambda: _ends(operator))
    thread.start()
    found = client.inspect_container(_running(client, own)["Id"])
    operator.on_kill()
    thread.join()
    host = found["HostConfig"]
    assert {name: found["Config"]["Labels"][name] for name in LABELS} == LABELS
    assert (host["CpuQuota"], host["CpuPeriod"], host["PidsLimit"]) == (50_000, 100_000, 512)
    assert (host["Memory"], host["MemorySwap"]) == (64 * 2**20, 64 * 2**20)
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert {mount["Destination"]: mount["RW"] for mount in found["Mounts"]} == {
        "/data/inputs": False,
        "/data/model_store": False,
        "/run/imagebatch/keys": False,
        "/data/runs": True,
    }


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        *((code, AirflowFailException) for code in (2, 65, 78)),
        (99, AirflowSkipException),
        *((code, AirflowException) for code in (69, 74, 75, 1)),
    ],
)
def test_exit_codes_mean_what_they_mean_for_a_process(
    client: docker.APIClient, stage: Stage, own: str, code: int, verdict: type[Exception]
) -> None:
    """The verdict on a container is the one on a process, and the container is gone all the same."""
    with pytest.raises(AirflowException) as raised:
        stage(f"import sys; print('last words', file=sys.stderr); sys.exit({code})").execute({})
    assert type(raised.value) is verdict
    assert code == 99 or "last words" in str(raised.value)
    assert left(client, own) == []


def test_running_out_of_memory_is_named_and_retried(stage: Stage) -> None:
    """The engine knows why a container was killed; the message says it."""
    with pytest.raises(AirflowException, match="out of memory") as raised:
        stage("x = bytearray(300_000_000); x[::4096] = b'1' * len(x[::4096])").execute({})
    assert type(raised.value) is AirflowException


def test_a_result_is_found_wherever_it_stands(client: docker.APIClient, stage: Stage, own: str) -> None:
    """A line on standard error after the result does not hide it, and the container is removed."""
    script = 'import sys; print(\'{"stage": "score", "predicted": 5}\'); print(\'warning\', file=sys.stderr)'
    assert stage(script).execute({}) == {"stage": "score", "predicted": 5}
    assert left(client, own) == []


def test_a_line_longer_than_the_engines_pieces_is_whole(stage: Stage) -> None:
    """The engine cuts lines at 16 KiB; what arrives is the line as it was written."""
    result = stage("import json; print(json.dumps({'stage': 'score', 'text': 'y' * 40_000}))").execute({})
    assert result is not None
    assert result["text"] == "y" * 40_000


@pytest.mark.parametrize("deaf", [False, True])
def test_a_task_that_runs_too_long_leaves_no_container(
    client: docker.APIClient, stage: Stage, own: str, *, deaf: bool
) -> None:
    """On Airflow's timeout a container is gone within five seconds, even one that ignores signals."""
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " if deaf else ""
    operator = stage(ignore + "import time; print('ready'); time.sleep(600)")
    with pytest.raises(BaseException, match="Timeout"), timeout(3):
        operator.execute({})
    begun = time.monotonic()
    operator.on_kill()
    assert time.monotonic() - begun < 5
    assert left(client, own) == []


def test_a_stopped_task_stops_its_container_in_time(client: docker.APIClient, stage: Stage, own: str) -> None:
    """Whoever marks a task as failed has its container gone before Airflow loses patience (five seconds)."""
    operator = stage("import time; time.sleep(600)")
    ends: list[BaseException] = []
    thread = threading.Thread(target=lambda: ends.append(_ends(operator)))
    thread.start()
    _running(client, own)
    begun = time.monotonic()
    operator.on_kill()
    thread.join(10)
    assert time.monotonic() - begun < 5
    assert left(client, own) == []
    assert isinstance(ends[0], AirflowException)


def abandoned(operator: DockerStageOperator) -> str:
    """Start a stage's container as its worker would, which then dies: nobody follows it."""
    operator._normalize_mounts()  # noqa: SLF001 - what execute() does first, and no more
    operator._start(operator._work())  # noqa: SLF001 - what execute() does next
    name: str = operator.container["Id"]
    return name


WAITS = """
import json, pathlib, time
print("begun", flush=True)
while not pathlib.Path("/data/runs/gate").exists():
    time.sleep(0.05)
print(json.dumps({"stage": "score", "host": pathlib.Path("/etc/hostname").read_text().strip()}))
"""
SLEEPS = "import time; time.sleep(600)"
EARLIER = {"labels": {"imagebatch.attempt": "1"}}


def test_a_retry_waits_for_the_container_of_a_killed_worker(
    client: docker.APIClient, stage: Stage, own: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The next attempt finds the healthy container, hears it from its first line on, and takes its result."""
    name = abandoned(stage(WAITS, **EARLIER))
    short = client.inspect_container(name)["Id"][:12]
    operator = stage(WAITS)
    ends: list[Any] = []
    thread = threading.Thread(target=lambda: ends.append(operator.execute({})))
    thread.start()
    client.exec_start(client.exec_create(name, ["touch", "/data/runs/gate"], user="root")["Id"])
    thread.join(30)
    assert ends == [{"stage": "score", "host": short}]
    assert "begun" in capfd.readouterr().out
    assert left(client, own) == []


def test_a_container_that_has_succeeded_unseen_is_not_run_again(
    client: docker.APIClient, stage: Stage, own: str
) -> None:
    """Its result is still in its log."""
    script = "import json, time; print(json.dumps({'stage': 'score', 'at': time.time()}))"
    name = abandoned(stage(script, **EARLIER))
    client.wait(name)
    told = client.logs(name).decode()
    result = stage(script).execute({})
    assert result is not None
    assert str(result["at"]) in told
    assert left(client, own) == []


@pytest.mark.parametrize(
    "difference", ["command", "variable", "failed", "paused", "not started", "superseded"]
)
def test_another_container_is_ended_and_a_new_one_made(
    client: docker.APIClient, stage: Stage, own: str, monkeypatch: pytest.MonkeyPatch, difference: str
) -> None:
    """One that does something else, or does not work, is no use; nor is one beside a later attempt."""
    monkeypatch.setenv("IMAGEBATCH_DOCKER_SECRETS", "IMAGEBATCH_API_TOKEN")
    monkeypatch.setenv("IMAGEBATCH_API_TOKEN", "old")
    ends_badly = "import sys, time; sys.exit(69)"
    wanted = ends_badly if difference == "failed" else SLEEPS
    with monkeypatch.context() as patched:
        if difference == "not started":
            patched.setattr(docker.APIClient, "start", lambda *_: None)
        names = [abandoned(stage("another" if difference == "command" else wanted, **EARLIER))]
    match difference:
        case "variable":
            monkeypatch.setenv("IMAGEBATCH_API_TOKEN", "new")
        case "failed":
            client.wait(names[0])
        case "paused":
            client.pause(names[0])
        case "superseded":
            time.sleep(1)  # the engine tells whole seconds
            names.append(abandoned(stage("another", **EARLIER)))
    operator = stage(wanted)
    thread = threading.Thread(target=lambda: _ends(operator))
    thread.start()
    if difference != "failed":
        new = _running(client, own, *names)["Names"][0]
        assert {each["Names"][0] for each in left(client, own)} == {new}
        operator.on_kill()
    thread.join(30)
    assert operator.container["Id"] not in names
    assert left(client, own) == []


def test_a_retry_ends_what_is_its_own_tasks_alone(client: docker.APIClient, stage: Stage) -> None:
    """The neighbour's container of the same attempt is not touched."""
    earlier = abandoned(stage(SLEEPS, **EARLIER))
    other = abandoned(stage(SLEEPS, labels={"imagebatch.map-index": "4"}))
    stage('print(\'{"stage": "score"}\')').execute({})
    with pytest.raises(NotFound):
        client.inspect_container(earlier)
    assert client.inspect_container(other)["State"]["Running"]
    client.remove_container(other, force=True)


def test_an_attempt_that_loses_sight_leaves_its_container(
    client: docker.APIClient, stage: Stage, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine does not answer nobody knows how a container fares: the next attempt will."""

    def away(*_: Any, **__: Any) -> None:
        raise EngineAwayError("the engine is away for 180 s")

    monkeypatch.setattr("imagebatch_dags.docker_operator.ContainerLogs.follow", away)
    operator = stage(SLEEPS)
    with pytest.raises(AirflowException, match="the engine is away"):
        operator.execute({})
    assert [each["State"] for each in left(client, own)] == ["running"]
    operator.on_kill()


def test_an_image_that_is_not_there_is_named(stage: Stage) -> None:
    """No pull is tried; the message says what to do, and no retry is spent on it."""
    with pytest.raises(AirflowFailException, match=r"no image nowhere/missing:1 .* IMAGEBATCH_DOCKER_IMAGE"):
        stage("", image="nowhere/missing:1").execute({})


def test_a_network_that_is_not_there_is_named(client: docker.APIClient, stage: Stage, own: str) -> None:
    """The engine's own words are the task's message, and nothing is left of the attempt."""
    with pytest.raises(AirflowException, match="no-such-network"):
        stage("print()", network_mode="no-such-network").execute({})
    assert left(client, own) == []


def _running(client: docker.APIClient, own: str, *but: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for each in left(client, own):
            if each["State"] == "running" and each["Names"][0].removeprefix("/") not in but:
                return each
        time.sleep(0.05)
    raise AssertionError("no container came up")


def _ends(operator: DockerStageOperator) -> BaseException | None:
    try:
        operator.execute({})
    except AirflowException as error:
        return error
    return None
