"""The one place that builds an operator for a stage.

`IMAGEBATCH_OPERATOR` chooses for all stages of all DAGs: `process` (a local process, the default), `docker`
(a container of the pipeline image) or `kubernetes` (a pod of it). The command, the settings and the meaning
of the exit codes are the same.
"""

import os
import shlex
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from imagebatch_dags.asked import refuse_unknown

# Settings about this installation, not about one run: every stage gets those that are set.
INSTALLATION = (
    "IMAGEBATCH_RUNS_URI",
    "IMAGEBATCH_API_URL",
    "IMAGEBATCH_MANAGEMENT_URL",
    "IMAGEBATCH_KEY_FILE",
    "IMAGEBATCH_API_TOKEN_FILE",  # the token itself is a secret: IMAGEBATCH_DOCKER_SECRETS, …
    "IMAGEBATCH_API_TOKEN_IN_CLEAR",
    "IMAGEBATCH_API_CA_FILE",
    "IMAGEBATCH_GOLDEN",
    "IMAGEBATCH_ALLOWED_ROOTS",
    "IMAGEBATCH_METRICS_URL",
    "IMAGEBATCH_SETTINGS_FILE",
    "IMAGEBATCH_BACKEND",
    "IMAGEBATCH_MODEL_ARCHIVE",
    "IMAGEBATCH_MODEL_CARD",
    "IMAGEBATCH_PAYLOAD",
    "IMAGEBATCH_REQUEST_TEMPLATE",
    "IMAGEBATCH_LOCAL_WORKERS",
    "IMAGEBATCH_CACHE",
    "IMAGEBATCH_BENCH",
    "IMAGEBATCH_BASELINE",
    "IMAGEBATCH_CEILING",
    "IMAGEBATCH_TRACKING_URI",
    "IMAGEBATCH_EXPERIMENT",
)
# What metrics say about the run: which pipeline's it is, and when the next one is due.
METRICS = {
    "IMAGEBATCH_PIPELINE": "{{ speaks_as(dag_run, params) }}",
    "IMAGEBATCH_NEXT_RUN": "{{ next_run(dag_run, params) }}",
}
RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=15),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
}


def inputs() -> str:
    """Give the folder of the inputs, as a stage sees it."""
    return os.environ.get("IMAGEBATCH_INPUTS", "/data/inputs")


def stage(task_id: str, command: list[str], **kwargs: Any) -> BaseOperator:
    """Build the task that runs one stage.

    Args:
        task_id: the task's name in the DAG.
        command: arguments of `imagebatch`, templated; the run id is added here.
        **kwargs: BaseOperator's arguments, also in place of those that retry.

    Returns:
        The operator that `IMAGEBATCH_OPERATOR` names.

    Raises:
        ValueError: `IMAGEBATCH_OPERATOR` is none of `process`, `docker` and `kubernetes`.
    """
    cls, arguments = _operator()
    arguments["environment"] |= METRICS
    return cls(task_id=task_id, command=_with_run(command), **arguments, **(RETRIES | kwargs))


def mapped_stage(task_id: str, command: list[str], shards: Any, **kwargs: Any) -> Any:
    """Build the task that runs one stage once per shard.

    Args:
        task_id: the task's name in the DAG.
        command: arguments of `imagebatch`, templated; run id and shard are added.
        shards: shard numbers, the output of an earlier task.
        **kwargs: BaseOperator's arguments, also in place of those that retry.

    Returns:
        The mapped operator.
    """
    cls, arguments = _operator()
    arguments["environment"] |= METRICS
    partial = cls.partial(task_id=task_id, command=_with_run(command), **arguments, **(RETRIES | kwargs))
    return partial.expand(shard=shards)


def maintenance(task_id: str, command: list[str], **kwargs: Any) -> BaseOperator:
    """Build the task that runs a command about all runs, not about one; an unknown conf is refused.

    Args:
        task_id: the task's name in the DAG.
        command: arguments of `imagebatch`, templated.
        **kwargs: BaseOperator's arguments, also in place of those that retry.

    Returns:
        The operator that `IMAGEBATCH_OPERATOR` names.
    """
    cls, arguments = _operator()
    checked: dict[str, Any] = {"pre_execute": refuse_unknown}
    return cls(task_id=task_id, command=command, **arguments, **(RETRIES | checked | kwargs))


def training(task_id: str, command: list[str], **kwargs: Any) -> BaseOperator:
    """Build the task that runs a verb of `imagebatch-train`, as a process of this machine.

    Args:
        task_id: the task's name in the DAG.
        command: arguments of `IMAGEBATCH_TRAIN_BIN`, templated; the words of `IMAGEBATCH_TRAIN_SETTINGS`
            (`KEY=VALUE …`, quoted as for a shell) are added.
        **kwargs: BaseOperator's arguments.

    Returns:
        The operator. It is not tried again: a release that failed has taken everything back.
    """
    from imagebatch_dags.process_operator import ProcessStageOperator  # noqa: PLC0415 - only the chosen one loads

    settings = {name: os.environ[name] for name in INSTALLATION if os.environ.get(name)}
    limits: dict[str, Any] = {"retries": 0, "execution_timeout": timedelta(hours=1)}
    return ProcessStageOperator(
        task_id=task_id,
        command=[*command, *shlex.split(os.environ.get("IMAGEBATCH_TRAIN_SETTINGS", ""))],
        executable=os.environ["IMAGEBATCH_TRAIN_BIN"],
        environment=settings,
        **(limits | kwargs),
    )


def _with_run(command: list[str]) -> list[str]:
    return [*command, "--run-id={{ run_folder(dag_run, ti) }}"]


def _operator() -> tuple[type[BaseOperator], dict[str, Any]]:
    settings = {name: os.environ[name] for name in INSTALLATION if os.environ.get(name)}
    # Whoever may trigger a DAG names its input: what lies outside the inputs stays closed.
    settings.setdefault("IMAGEBATCH_ALLOWED_ROOTS", inputs())
    kind = os.environ.get("IMAGEBATCH_OPERATOR", "process")
    if kind == "process":
        from imagebatch_dags.process_operator import ProcessStageOperator  # noqa: PLC0415 - only the chosen one loads

        executable = os.environ.get("IMAGEBATCH_BIN", "imagebatch")
        return ProcessStageOperator, {
            "executable": executable,
            "environment": settings,
            "warm_seconds": _warm_seconds(),
        }
    if kind == "docker":
        from imagebatch_dags.container import stage_container  # noqa: PLC0415 - the docker SDK costs every parse
        from imagebatch_dags.docker_operator import DockerStageOperator  # noqa: PLC0415 - the docker SDK costs every parse

        return DockerStageOperator, {**stage_container(), "environment": settings}
    if kind == "kubernetes":
        from imagebatch_dags.kubernetes_operator import KubernetesStageOperator  # noqa: PLC0415 - its client costs every parse
        from imagebatch_dags.pod import stage_pod  # noqa: PLC0415 - its client costs every parse

        return KubernetesStageOperator, {**stage_pod(), "environment": settings}
    raise ValueError(f"IMAGEBATCH_OPERATOR is {kind!r}: set it to process, docker or kubernetes")


def _warm_seconds() -> float:
    said = os.environ.get("IMAGEBATCH_WARM_SECONDS", "900")
    if not said.isdecimal():
        raise ValueError(f"IMAGEBATCH_WARM_SECONDS is {said!r}: set it to whole seconds, 0 for none")
    return float(said)
