"""Stages that are forked by a process that has imported everything."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from imagebatch_dags.process_operator import ProcessStageOperator, signal_group
from imagebatch_dags.warm_start import Forked, Started, socket_of, start

CLI = str(Path(__file__).resolve().parents[2] / "pipeline_image" / ".venv" / "bin" / "imagebatch")
OWN = {name: value for name, value in os.environ.items() if not name.startswith(("IMAGEBATCH_", "AIRFLOW"))}
IDLE = 60.0  # seconds, longer than any test waits
PATIENCE = 60.0


def ran(stage: Started) -> tuple[int, bytes, bytes]:
    """Read a stage to its end."""
    assert stage.stdout
    assert stage.stderr
    with stage.stdout as out, stage.stderr as err:
        read = out.read(), err.read()
    return stage.wait(), *read


def listening() -> int:
    """Give the process id of who listens, by the kernel."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(socket_of(CLI, OWN)))
        return int(struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def forked(arguments: list[str], environment: dict[str, str]) -> Forked:
    """Start a stage until it is a fork: the first one starts the process that forks."""
    deadline = time.monotonic() + PATIENCE
    while True:
        stage = start([CLI, *arguments], environment, IDLE)
        if isinstance(stage, Forked):
            return stage
        ran(stage)
        assert time.monotonic() < deadline, "no process became warm"


@pytest.fixture(autouse=True, scope="module")
def _end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the socket, and nobody left who listens."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("warm"))
    try:
        ran(forked(["--version"], OWN))
        yield
    finally:
        with contextlib.suppress(OSError):
            os.kill(listening(), signal.SIGKILL)
        tempfile.tempdir = before


@pytest.fixture
def silent() -> Iterator[str]:
    """A model API that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def png() -> bytes:
    """A grey PNG of one pixel."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(2))),
        (b"IEND", b""),
    )
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def waiting(folder: Path, api: str) -> list[str]:
    """A command that has an image, and waits for a model API."""
    images = folder / "images"
    images.mkdir()
    (images / "a.png").write_bytes(png())
    return [
        "preprocess",
        f"--input={images}",
        f"--runs-uri={folder}",
        "--run-id=a",
        "--model=m",
        f"--api-url={api}",
    ]


@pytest.mark.parametrize(
    "arguments", [["--version"], ["score"], ["--parse-only", "score", "--run-id=a"], ["none"]]
)
def test_a_fork_says_what_a_process_says(arguments: list[str]) -> None:
    """Exit code, standard output and standard error are the same."""
    plain = ran(start([CLI, *arguments], OWN))
    assert ran(forked(arguments, OWN)) == plain


def test_a_fork_has_the_settings_of_its_own_run() -> None:
    """Variables of one stage reach it, and not the next."""
    arguments = ["--parse-only", "score", "--run-id=a"]
    code, _, complaint = ran(forked(arguments, OWN | {"IMAGEBATCH_PACK_SIZE": "none"}))
    assert (code, b"none" in complaint) == (2, True)
    assert ran(forked(arguments, OWN))[0] == 0


def test_other_variables_want_another_process() -> None:
    """What a library may read when it is imported is part of the socket's name; settings are not."""
    name = socket_of(CLI, OWN)
    assert socket_of(CLI, OWN | {"OMP_NUM_THREADS": "7"}) != name
    assert socket_of(CLI, OWN | {"IMAGEBATCH_PIPELINE": "a"}) == name


def test_a_stopped_task_ends_its_fork(tmp_path: Path, silent: str) -> None:
    """What ends a process group ends a fork's, too, and the exit code names the signal."""
    stage = forked(waiting(tmp_path, silent), OWN)
    assert os.getpgid(stage.pid) == stage.pid
    assert stage.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        stage.wait(0.05)
    signal_group(stage.pid, signal.SIGKILL)
    assert ran(stage)[0] == -signal.SIGKILL
    assert not Path(f"/proc/{stage.pid}").exists()


def test_a_killed_warm_process_costs_one_retry(tmp_path: Path, silent: str) -> None:
    """A stage whose exit code nobody can know counts as killed, is ended, and the next one starts."""
    operator = ProcessStageOperator(
        task_id="a", executable=CLI, command=["score"], environment=OWN, warm_seconds=IDLE
    )
    operator.command = waiting(tmp_path, silent)
    stage = forked(operator.command, OWN)
    os.kill(listening(), signal.SIGKILL)
    assert stage.wait() == -signal.SIGKILL
    operator._process = stage  # noqa: SLF001 - as `execute` sets it, at a moment that can be met
    operator.on_kill()
    ran(stage)
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{stage.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{stage.pid}").exists()
    assert ran(start([CLI, "--version"], OWN, IDLE))[0] == 0


def test_the_operator_takes_a_fork_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verdict and its message are those of the exit code."""
    for name in [name for name in os.environ if name.startswith("IMAGEBATCH_")]:
        monkeypatch.delenv(name)
    ran(forked(["--version"], OWN))
    operator = ProcessStageOperator(task_id="a", executable=CLI, command=["score"], warm_seconds=IDLE)
    with pytest.raises(AirflowException, match=r"exit code 2 .*--run-id is required"):
        operator.execute({})


def test_a_folder_that_others_reach_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write there could answer in the place of a stage: the stage starts plainly."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"imagebatch-warm-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o770)
    stage = start([CLI, "--version"], OWN, IDLE)
    assert isinstance(stage, subprocess.Popen)
    assert ran(stage)[0] == 0
    assert not list(folder.iterdir())


def test_it_ends_when_nobody_comes(tmp_path: Path) -> None:
    """After its seconds without a stage the process ends and takes its socket away."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    done: Any = subprocess.run(
        [CLI, "--keep-warm", folder / "s", "0.1"], env=OWN, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0
    assert not (folder / "s").exists()
