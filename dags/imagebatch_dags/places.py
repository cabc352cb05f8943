"""What containers and pods of stages have in common: where things lie in them, labels that name them."""

import os

INPUTS = "/data/inputs"
RUNS = "/data/runs"
MODELS = "/data/model_store"  # for the golden images
KEYS = "/run/imagebatch/keys"

PROGRAM = "imagebatch"

INSTALLATION = "imagebatch.installation"
DAG = "imagebatch.dag"
DAG_RUN = "imagebatch.dag-run"
RUN = "imagebatch.run"
TASK = "imagebatch.task"
MAP_INDEX = "imagebatch.map-index"
ATTEMPT = "imagebatch.attempt"


def installation() -> str:
    """Name this Airflow among those that may share one engine or namespace (`IMAGEBATCH_INSTALLATION`)."""
    return os.environ.get("IMAGEBATCH_INSTALLATION", "imagebatch")


def labels() -> dict[str, str]:
    """Give the labels of a stage, templated: which attempt at which task of which run it is."""
    return {
        INSTALLATION: installation(),
        DAG: "{{ dag.dag_id }}",
        DAG_RUN: "{{ dag_run.run_id }}",
        RUN: "{{ run_folder(dag_run, ti) }}",
        TASK: "{{ ti.task_id }}",
        MAP_INDEX: "{{ ti.map_index }}",
        ATTEMPT: "{{ ti.try_number }}",
    }
