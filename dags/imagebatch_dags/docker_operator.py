"""A stage as one container of the pipeline image."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker.errors import APIError, NotFound
from docker.types import LogConfig

from imagebatch_dags.container import NAME, confinement, secrets
from imagebatch_dags.container_logs import ContainerLogs, EngineAwayError
from imagebatch_dags.containers import GRACE_SECONDS, end, stage_containers
from imagebatch_dags.lineage import StageLineage
from imagebatch_dags.orphans import earlier_attempts
from imagebatch_dags.outcome import last_result, raise_for_exit
from imagebatch_dags.places import ATTEMPT, INSTALLATION, PROGRAM
from imagebatch_dags.process_operator import announce
from imagebatch_dags.reattach import Work, is_worth_waiting_for
from imagebatch_dags.stage_command import StageCommand

OUT_OF_MEMORY = 137


class DockerStageOperator(StageCommand, StageLineage, DockerOperator):
    """Run one `imagebatch` command in a container that is gone when the task ends.

    The engine's client, its connection and its arguments are DockerOperator's. What it does not offer is done
    here: a confined container, output of any length, an end that leaves nothing, and a retry that waits for
    the container of a killed worker.

    Args:
        command: arguments of `imagebatch`, which is on the image's PATH; templated. An empty one is left out.
        shard: shard number to add as `--shard`, for mapped tasks.
        cpu_limit: cores.
        tmp_size: of `/tmp`, which is in memory.
        **kwargs: DockerOperator's; `stage_container()` gives the ones that every stage shares.
    """

    template_fields: Sequence[str] = (*DockerOperator.template_fields, "labels")
    template_ext: Sequence[str] = ()  # an argument that ends in .sh is an argument, not a template file

    def __init__(
        self, *, command: list[str], cpu_limit: float, tmp_size: str, shard: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(command=command, **kwargs)
        self.cpu_limit = cpu_limit
        self.tmp_size = tmp_size
        self.shard = shard

    def execute(self, context: Context) -> dict[str, Any] | None:  # type: ignore[override] # the parsed line, not the text
        """Run the container to its end, or wait for that of an earlier attempt, then remove it.

        Only who knows that a container has ended, or wants it to end, removes it: an attempt that loses sight
        of it leaves it to the next one.

        Returns:
            The JSON object of the stage's last line.

        Raises:
            AirflowException: and its kin, by exit code (`outcome.raise_for_exit`).
        """
        self._normalize_mounts()
        work = self._work()
        if (earlier := self._earlier(work)) is None:
            self._start(work)
        else:
            self.container = {"Id": earlier}
            self.log.info("Waiting for container %s, which an earlier attempt has started", earlier)
        logs, state = self._follow()
        self._remove()
        code = OUT_OF_MEMORY if state.get("OOMKilled") else int(state["ExitCode"])
        raise_for_exit(self.stage_arguments[0], code, logs.last[-1] if logs.last else "")
        result = last_result(logs.last)
        announce(self.outlets, context, result)
        self.result = result
        return result

    def on_kill(self) -> None:
        """Stop and remove the container, when the task is stopped or has run out of its time."""
        if not self.container:  # None until it was created
            return
        self.log.info("Stopping container %s", self.container["Id"])
        try:
            self.cli.stop(self.container["Id"], timeout=GRACE_SECONDS)
        except APIError as error:
            self.log.warning("Container %s is not stopped: %s", self.container["Id"], error)
        self._remove()

    def _work(self) -> Work:
        images = self.cli.images(name=self.image)
        if not images:
            # The engine is reached through a proxy that pulls nothing: what runs was put there on purpose.
            raise AirflowFailException(
                f"no image {self.image} on the engine: build or pull it there, or set IMAGEBATCH_DOCKER_IMAGE"
            )
        try:
            hidden = secrets()
        except ValueError as error:
            raise AirflowFailException(str(error)) from error
        return Work(
            command=[PROGRAM, *self.stage_arguments],
            image=self.image,
            image_ids={each["Id"] for each in images},
            environment={**self.environment, **hidden},
        )

    def _earlier(self, work: Work) -> str | None:
        """End what earlier attempts have left behind, and name what is worth waiting for."""
        if not isinstance(self.labels, dict):
            return None
        found = earlier_attempts(stage_containers(self.cli, self.labels[INSTALLATION]), self.labels)
        # Beside a later attempt an earlier one cannot finish: only the newest may be waited for.
        kept = found[-1] if found and is_worth_waiting_for(self.cli, found[-1].id, work) else None
        for each in found:
            if each is not kept:
                end(self.cli, each, f"attempt {self.labels[ATTEMPT]} takes over")
        return kept.id if kept else None

    def _follow(self) -> tuple[ContainerLogs, dict[str, Any]]:
        logs = ContainerLogs(self.cli, self.container["Id"], lambda line: self.log.info("%s", line))
        try:
            return logs, logs.follow()
        except NotFound as error:
            raise AirflowException(f"container {self.container['Id']} was removed while it ran") from error
        except EngineAwayError as error:
            raise AirflowException(str(error)) from error

    def _start(self, work: Work) -> None:
        log_file: dict[str, Any] = {"max-size": self.log_opts_max_size, "max-file": self.log_opts_max_file}
        host: dict[str, Any] = {
            "mounts": self.mounts,
            "network_mode": self.network_mode,
            "mem_limit": self.mem_limit,
            "memswap_limit": self.mem_limit,  # the same: no swap
            # json-file would replace the bytes of a character that it cuts, after 16 KiB of a line.
            "log_config": LogConfig(type="local", config=log_file),
            **confinement(self.cpu_limit, self.tmp_size),
        }
        identity = f"{NAME}{uuid4().hex}"
        self.container = {"Id": identity}  # before it exists: on_kill() finds it at every moment
        try:
            self.cli.create_container(
                name=identity,
                image=work.image,
                command=work.command,
                environment=work.environment,
                user=self.user,
                labels=self.labels,
                # The first process of a container ignores SIGTERM unless it handles it; Python has SIGINT.
                stop_signal="SIGINT",
                host_config=self.cli.create_host_config(**host),
            )
            self.log.info("Running %s in container %s of %s", self.stage_arguments, identity, self.image)
            self.cli.start(identity)
        except APIError as error:
            self._remove()
            raise AirflowException(f"the engine refuses: {error.explanation or error}") from error

    def _remove(self) -> None:
        if not self.container:
            return
        try:
            self.cli.remove_container(self.container["Id"], v=True, force=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code == HTTPStatus.CONFLICT:
                return  # the other of on_kill() and execute() is removing it
            self.log.warning("Container %s is not removed: %s", self.container["Id"], error)
