"""The DAGs of the YAML files in `pipelines/`."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from airflow.sdk import DAG

from imagebatch_dags.factory import build_dag
from imagebatch_dags.pipeline_files import one_line, read_pipelines
from imagebatch_dags.stage import inputs

PIPELINES = Path(__file__).parents[1] / "pipelines"


@dataclass(frozen=True)
class Made:
    """What became of the files.

    Attributes:
        dags: of the pipelines that are right.
        mistakes: one line for each file that is refused.
    """

    dags: list[DAG] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def dags_of_files(folder: Path = PIPELINES, *, auto_register: bool = True) -> Made:
    """Build a DAG for each pipeline's file.

    Args:
        folder: of the files.
        auto_register: let Airflow find the DAGs in the file that is being parsed.

    Returns:
        The DAGs, and the mistakes: a file that is wrong costs no other its DAG.
    """
    found = read_pipelines(folder, {"IMAGEBATCH_INPUTS": inputs(), **os.environ})
    made = Made(mistakes=found.mistakes)
    for pipeline in found.pipelines:
        try:
            made.dags.append(build_dag(pipeline, auto_register=auto_register))
        except Exception as error:  # noqa: BLE001 - whatever Airflow says of one pipeline, the others stand
            made.mistakes.append(f"pipeline {pipeline.dag_id}: {one_line(str(error))}")
    return made
