"""One batch DAG for each YAML file in `pipelines/`; pipelines_with_mistakes.py tells of wrong ones."""

from airflow.sdk import DAG
from imagebatch_dags.from_files import dags_of_files

for made in dags_of_files().dags:
    dag: DAG = made
    globals()[made.dag_id] = made
