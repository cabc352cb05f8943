"""A stage as one container of the pipeline image."""

import os
from collections.abc import Sequence
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from docker.errors import APIError
from docker.types import Mount

from imagebatch_dags.outcome import last_result, raise_for_exit
from imagebatch_dags.process_operator import announce

INPUTS = "/data/inputs"
RUNS = "/data/runs"
KEYS = "/run/imagebatch/keys"
OUT_OF_MEMORY = 137


class DockerStageOperator(DockerOperator):
    """Run one `imagebatch` command in a container that is gone when the task ends.

    Args:
        command: arguments after the image's entrypoint; templated.
        shard: shard number to add as `--shard`, for mapped tasks.
        **kwargs: DockerOperator's; `stage_container()` gives the ones that every stage shares.
    """

    template_fields: Sequence[str] = (*DockerOperator.template_fields, "labels")
    template_ext: Sequence[str] = ()  # an argument that ends in .sh is an argument, not a template file

    def __init__(self, *, command: list[str], shard: int | None = None, **kwargs: Any) -> None:
        # The base class returns one line by default, and that may be a log line; all lines hold the result.
        super().__init__(command=command, xcom_all=True, **kwargs)
        self.shard = shard

    @property
    def arguments(self) -> list[str]:
        """The command with its shard, as the stage's parser will see it."""
        command = list(self.command or [])
        return command if self.shard is None else [*command, f"--shard={self.shard}"]

    def execute(self, context: Context) -> dict[str, Any] | None:  # type: ignore[override] # the parsed line, not the text
        """Run the container to its end, then remove it.

        Returns:
            The JSON object of the stage's last line.

        Raises:
            AirflowException: and its kin, by exit code (`outcome.raise_for_exit`).
        """
        self.command = self.arguments
        self.shard = None
        try:
            lines = super().execute(context)
        except DockerContainerFailedException as error:
            logs = [line for line in error.logs or [] if isinstance(line, str)]
            raise_for_exit(self.command[0], self._exit_code(), logs[-1] if logs else "")
            raise
        finally:
            self._remove()
        result = last_result(lines or [])
        announce(self.outlets, context, result)
        return result

    def _exit_code(self) -> int:
        # Asked of the engine: the base class has it only inside a message.
        state = self.cli.inspect_container(self.container["Id"])["State"]
        return OUT_OF_MEMORY if state.get("OOMKilled") else int(state["ExitCode"])

    def _remove(self) -> None:
        if not self.container:  # None until it was created
            return
        try:
            self.cli.remove_container(self.container["Id"], force=True)
        except APIError as error:
            self.log.warning("Container %s is not removed: %s", self.container["Id"], error)


def stage_container() -> dict[str, Any]:
    """Build DockerOperator's arguments that every stage shares, from the environment.

    `IMAGEBATCH_DOCKER_IMAGE`, `_NETWORK`, `_MEMORY`, `_USER`, and for the mounts `_INPUTS`, `_RUNS`, `_KEYS`:
    a volume's name, or an absolute path of the engine's machine.

    Returns:
        Keyword arguments; the container runs as an ordinary user, sees the images and the keys read-only,
        and can write only to the runs.
    """
    env = os.environ.get
    return {
        "image": env("IMAGEBATCH_DOCKER_IMAGE", "imagebatch:latest"),
        "network_mode": env("IMAGEBATCH_DOCKER_NETWORK", "imagebatch"),
        "mem_limit": env("IMAGEBATCH_DOCKER_MEMORY", "2g"),
        "user": env("IMAGEBATCH_DOCKER_USER", "10001:10001"),
        "mounts": [
            _mount(env("IMAGEBATCH_DOCKER_INPUTS", "imagebatch-inputs"), INPUTS, read_only=True),
            _mount(env("IMAGEBATCH_DOCKER_KEYS", "imagebatch-keys"), KEYS, read_only=True),
            _mount(env("IMAGEBATCH_DOCKER_RUNS", "imagebatch-runs"), RUNS, read_only=False),
        ],
        "mount_tmp_dir": False,  # its folder is the worker's, which the engine cannot see
        "auto_remove": "never",  # execute() removes it, after reading the exit code
        "privileged": False,
        "log_opts_max_size": "10m",
        "labels": {
            "imagebatch.dag": "{{ dag.dag_id }}",
            "imagebatch.run": "{{ stage_run_id(dag_run.run_id) }}",
            "imagebatch.task": "{{ ti.task_id }}",
            "imagebatch.map-index": "{{ ti.map_index }}",
            "imagebatch.attempt": "{{ ti.try_number }}",
        },
    }


def _mount(source: str, target: str, *, read_only: bool) -> Mount:
    return Mount(
        target=target,
        source=source,
        type="bind" if source.startswith("/") else "volume",
        read_only=read_only,
    )
