import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from imagebatch_dags.process_operator import ProcessStageOperator


def program(folder: Path, body: str) -> ProcessStageOperator:
    """Make an executable out of Python code, and an operator that runs it."""
    path = folder / "stage"
    path.write_text(f"#!{sys.executable} -I\nimport os, sys, time\n{body}\n")
    path.chmod(0o755)
    return ProcessStageOperator(
        task_id="score", executable=str(path), command=["score", "--a=$(id) b;c"], grace=1
    )


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true: Any, seconds: float = 10) -> bool:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_last_line_becomes_the_result_and_no_shell_sees_the_arguments(tmp_path: Path) -> None:
    """A real process gets its arguments byte for byte, and its last line of JSON is returned."""
    operator = program(
        tmp_path, "import json; print('noise'); print(json.dumps({'stage': 's', 'argv': sys.argv[1:]}))"
    )
    operator.shard = 7
    assert operator.execute({}) == {"stage": "s", "argv": ["score", "--a=$(id) b;c", "--shard=7"]}


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        *((code, AirflowFailException) for code in (2, 65, 78)),
        (99, AirflowSkipException),
        *((code, AirflowException) for code in (69, 74, 75)),
    ],
)
def test_real_exit_codes_reach_airflow(tmp_path: Path, code: int, verdict: type[Exception]) -> None:
    """The exit code of a real process decides, and its last complaint is in the message."""
    operator = program(
        tmp_path, f"print('first', file=sys.stderr); print('last words', file=sys.stderr); sys.exit({code})"
    )
    with pytest.raises(verdict) as raised:
        operator.execute({})
    assert type(raised.value) is verdict
    assert code == 99 or "last words" in str(raised.value)


def test_an_empty_argument_is_left_out(tmp_path: Path) -> None:
    """A flag that a run does not set is no argument at all."""
    operator = program(tmp_path, "import json; print(json.dumps({'stage': 's', 'argv': sys.argv[1:]}))")
    operator.command = ["score", "", "--b=1", ""]
    assert operator.execute({}) == {"stage": "s", "argv": ["score", "--b=1"]}


def test_a_stage_killed_by_a_signal_is_retried(tmp_path: Path) -> None:
    """The kernel's out-of-memory killer is no verdict on the data."""
    with pytest.raises(AirflowException, match="exit code -9") as raised:
        program(tmp_path, "os.kill(os.getpid(), 9)").execute({})
    assert type(raised.value) is AirflowException


def test_a_missing_executable_says_what_to_do(tmp_path: Path) -> None:
    """An installation without the pipeline's environment fails at once with a hint."""
    operator = ProcessStageOperator(task_id="a", executable=str(tmp_path / "none"), command=["check"])
    with pytest.raises(AirflowFailException, match="make setup"):
        operator.execute({})


def test_standard_error_reaches_the_log_while_the_stage_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Log lines are seen live, not when the stage has ended."""
    gate = tmp_path / "gate"
    operator = program(
        tmp_path,
        "print('under way', file=sys.stderr, flush=True)\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.02)",
    )
    thread = threading.Thread(target=operator.execute, args=({},))
    thread.start()
    seen = wait_until(lambda: "under way" in capfd.readouterr().out)
    gate.touch()
    thread.join(10)
    assert seen


def test_on_kill_ends_the_whole_group_also_when_sigterm_is_ignored(tmp_path: Path) -> None:
    """Stopping a task leaves neither the stage nor what the stage has started."""
    pids = tmp_path / "pids"
    operator = program(
        tmp_path,
        "import signal, subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}\\n')\ntime.sleep(300)",
    )
    failed: list[BaseException] = []

    def run() -> None:
        try:
            operator.execute({})
        except AirflowException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    stage, child = map(int, pids.read_text().split())
    operator.on_kill()
    thread.join(10)
    assert failed
    assert wait_until(lambda: not alive(stage) and not alive(child))


def test_a_timeout_ends_the_stage(tmp_path: Path) -> None:
    """An exception in the waiting task, such as Airflow's timeout, does not leave the process behind."""
    pids = tmp_path / "pid"
    operator = program(tmp_path, f"open({str(pids)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)")

    def expire(*_: Any) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(TimeoutError):
            operator.execute({})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert not alive(int(pids.read_text()))


def test_what_a_finished_stage_left_behind_is_ended(tmp_path: Path) -> None:
    """A child that outlives its stage, holding its standard error, neither stays nor hangs the task."""
    operator = program(
        tmp_path,
        "import json, subprocess\nchild = subprocess.Popen(['sleep', '300'])\n"
        "print(json.dumps({'stage': 's', 'child': child.pid}))",
    )
    begun = time.monotonic()
    result = operator.execute({})
    assert result is not None
    assert wait_until(lambda: not alive(result["child"]))
    assert time.monotonic() - begun < 10


def test_airflows_secrets_stay_with_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage sees the worker's variables and its settings, but none of Airflow's."""
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    operator = program(
        tmp_path, "import json; print(json.dumps({'stage': 's', 'names': sorted(os.environ)}))"
    )
    operator.environment = {"IMAGEBATCH_RUNS_URI": "/runs"}
    result = operator.execute({})
    assert result is not None
    assert {"AWS_REGION", "IMAGEBATCH_RUNS_URI"} <= set(result["names"])
    assert not [name for name in result["names"] if "AIRFLOW" in name]
    assert os.environ["AIRFLOW_HOME"]
