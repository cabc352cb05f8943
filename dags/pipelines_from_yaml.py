"""One batch DAG for each YAML file in `pipelines/`."""

import os
from pathlib import Path

from airflow.sdk import DAG
from imagebatch_dags.factory import build_dag
from imagebatch_dags.pipeline import read_pipeline
from imagebatch_dags.stage import inputs

for path in sorted(Path(__file__).with_name("pipelines").glob("*.yaml")):
    pipeline = read_pipeline(path, {"IMAGEBATCH_INPUTS": inputs(), **os.environ})
    dag: DAG = build_dag(pipeline)
    globals()[pipeline.dag_id] = dag
