"""The default batch DAG: preprocess, check, score by shard, check, postprocess, every night.

Its graph is in `imagebatch_dags/factory.py`, so that a further DAG is one YAML file in `pipelines/`.
"""

from airflow.sdk import DAG
from imagebatch_dags.factory import build_dag
from imagebatch_dags.pipeline import Pipeline
from imagebatch_dags.stage import inputs

dag: DAG = build_dag(
    Pipeline(
        dag_id="batch_image_inference",
        description="Scores the solar-cell photographs every night and proves that none was lost",
        input=f"{inputs()}/solar-cells/images",
        tags=["solar-cells"],
    )
)
