"""What the DAG files of imagebatch share: stages as operators, deadlines, DAGs from YAML."""
