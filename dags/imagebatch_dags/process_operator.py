"""A stage as a local process: for machines without a container engine."""

import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from typing import IO, Any

from airflow.sdk import BaseOperator, Context

from imagebatch_dags.lineage import StageLineage
from imagebatch_dags.outcome import last_result, raise_for_exit
from imagebatch_dags.stage_command import StageCommand
from imagebatch_dags.warm_start import Started, start

# Airflow's own settings hold its signing keys and its database's address: no business of a stage.
WITHHELD = ("AIRFLOW", "_AIRFLOW", "__AIRFLOW", "PYTHONPATH", "VIRTUAL_ENV")
LONGEST_LINE = 65_536  # bytes of one log line; the rest of a longer one becomes the next line


class ProcessStageOperator(StageCommand, StageLineage, BaseOperator):
    """Run one `imagebatch` command as a process group of its own.

    Args:
        command: arguments after the executable; templated, never seen by a shell. An empty one is left out.
        shard: shard number to add as `--shard`, for mapped tasks.
        environment: variables added to the worker's own (without Airflow's); templated.
        executable: the `imagebatch` command of the pipeline environment: a path, or a name on the PATH.
        grace: seconds between SIGTERM and SIGKILL when the task is stopped.
        warm_seconds: how long a process that has imported everything waits for the next stage; 0: none does.
    """

    template_fields: Sequence[str] = ("command", "environment")
    ui_color = "#e8f0fa"

    def __init__(
        self,
        *,
        command: list[str],
        executable: str,
        shard: int | None = None,
        environment: dict[str, str] | None = None,
        grace: float = 20.0,
        warm_seconds: float = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.executable = executable
        self.shard = shard
        self.environment = environment or {}
        self.grace = grace
        self.warm_seconds = warm_seconds
        self._process: Started | None = None

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Run the stage to its end.

        Returns:
            The JSON object of the last line of standard output.

        Raises:
            AirflowException: and its kin, by exit code (`outcome.raise_for_exit`).
        """
        if shutil.which(self.executable) is None:
            raise_for_exit(
                self.command[0],
                78,
                f"{self.executable} is not installed: run `make setup`, or set IMAGEBATCH_BIN",
            )
        self.log.info("Running %s", [self.executable, *self.stage_arguments])
        self._process = start(
            [self.executable, *self.stage_arguments], self._environment(), self.warm_seconds
        )
        answers: deque[str] = deque(maxlen=5)
        complaints: deque[str] = deque(maxlen=1)
        readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, answers, False), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, complaints, True), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            code = self._process.wait()
        finally:
            self.on_kill()  # on a timeout all of it; at a normal end whatever the stage left behind
        for reader in readers:
            reader.join(timeout=5)
        raise_for_exit(self.command[0], code, complaints[-1] if complaints else "")
        result = last_result(answers)
        announce(self.outlets, context, result)
        self.result = result
        return result

    def on_kill(self) -> None:
        """Stop the whole process group: SIGTERM, and SIGKILL after the grace period."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self.log.info("Stopping process group %d", process.pid)
            signal_group(process.pid, signal.SIGTERM)
            try:
                process.wait(self.grace)
            except subprocess.TimeoutExpired:
                self.log.warning("Process %d ignored SIGTERM for %gs: killing it", process.pid, self.grace)
        signal_group(process.pid, signal.SIGKILL)
        process.wait()

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(WITHHELD)}
        return own | self.environment

    def _read(self, stream: IO[bytes], lines: deque[str], to_log: bool) -> None:  # noqa: FBT001 - a private thread target
        with stream:
            for raw in iter(lambda: stream.readline(LONGEST_LINE), b""):
                line = raw.decode(errors="replace").rstrip()
                if line:
                    lines.append(line)
                    if to_log:
                        self.log.info("%s", line)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if any of it is left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def announce(outlets: Sequence[Any], context: Context, result: dict[str, Any] | None) -> None:
    """Attach a stage's result to the events of its assets, so that consumers find the run's files."""
    for asset in outlets:
        context["outlet_events"][asset].extra = dict(result or {})
