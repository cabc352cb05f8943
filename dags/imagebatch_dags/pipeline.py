"""What makes one batch DAG differ from another, as one YAML file or one call says it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template
from typing import Any

import yaml

NIGHTLY = "0 2 * * *"


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One batch DAG.

    Attributes:
        dag_id: the DAG's name.
        description: one line for the UI.
        input: folder, image or fsspec URI; `${NAME}` stands for an environment variable.
        manifest: CSV or Parquet with a column `uri`, in place of `input`.
        schedule: cron expression in UTC; empty: only by hand.
        model: name of the served model.
        model_version: empty: the server's default.
        shard_size: images per mapped task, of which each costs about two CPU-seconds, whatever it scores. A
            million images stay below Airflow's limit of 1,024 mapped tasks.
        top_k: labels per image.
        max_failures: a count (`20`) or a share (`5%`).
        parallel_shards: shards of one run scored at once.
        warn_after_minutes: the first deadline, after queueing.
        late_after_minutes: the second deadline, after queueing.
        stage_timeout_minutes: a task that runs longer is stopped and retried.
        tags: more tags for the UI.
    """

    dag_id: str
    description: str = "Scores images in bulk and proves that none was lost"
    input: str = ""
    manifest: str = ""
    schedule: str = NIGHTLY
    model: str = "solar-cells"
    model_version: str = ""
    shard_size: int = 4096
    top_k: int = 4
    max_failures: str = "5%"
    parallel_shards: int = 4
    warn_after_minutes: float = 30
    late_after_minutes: float = 60
    stage_timeout_minutes: float = 240
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if bool(self.input) == bool(self.manifest):
            raise ValueError(f"{self.dag_id}: give one of input and manifest")
        if not 0 < self.warn_after_minutes < self.late_after_minutes:
            raise ValueError(
                f"{self.dag_id}: warn_after_minutes must be above 0 and below late_after_minutes"
            )


def read_pipeline(path: Path, environment: Mapping[str, str] = os.environ) -> Pipeline:
    """Read one YAML file.

    Args:
        path: the file; its keys are the attributes of `Pipeline`, and `dag_id` is its stem unless given.
        environment: where `${NAME}` in text values is looked up.

    Returns:
        The pipeline.

    Raises:
        ValueError: no mapping, an unknown key, a value of the wrong type, an unset variable; one line naming
            the file.
    """
    try:
        values = _checked(yaml.safe_load(path.read_text(encoding="utf-8")), environment)
        return Pipeline(**{"dag_id": path.stem, **values})
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"pipeline {path}: {reason}") from error


def _checked(content: Any, environment: Mapping[str, str]) -> dict[str, Any]:
    known = {each.name: each.type for each in fields(Pipeline)}
    if not isinstance(content, dict):
        raise ValueError("it must be a mapping of keys to values")  # noqa: TRY004 - one kind for all that a file can have wrong
    unknown = sorted(map(str, content.keys() - known.keys()))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}, use {', '.join(known)}")
    values = {key: _expanded(value, environment) for key, value in content.items()}
    for key, value in values.items():
        _check_type(key, value, known[key])
    return values


def _expanded(value: Any, environment: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return Template(value).substitute(environment)
    except KeyError as error:
        raise ValueError(f"environment variable {error.args[0]} is not set") from error


def _check_type(key: str, value: Any, wanted: Any) -> None:
    kinds: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float)}
    allowed = kinds.get(wanted, (list,))
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise ValueError(f"{key} must be {' or '.join(kind.__name__ for kind in allowed)}, not {value!r}")  # noqa: TRY004 - one kind for all that a file can have wrong
