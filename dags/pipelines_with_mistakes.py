"""No DAG: the import error of this file names each YAML file in `pipelines/` that is refused, and its key.

Airflow takes all DAGs of a file away while that file has an import error, also those with runs under way. So
the mistakes are raised here, and pipelines_from_yaml.py, which has the DAGs of the others, has no error.
"""

from imagebatch_dags.from_files import dags_of_files

if mistakes := dags_of_files(auto_register=False).mistakes:
    raise ValueError(f"{len(mistakes)} of the pipelines refused, the others stand:\n" + "\n".join(mistakes))
