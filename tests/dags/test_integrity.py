import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from imagebatch_dags.factory import plan

ROOT = Path(__file__).resolve().parents[2]
PARSE_SECONDS = 2.0  # of one file, with Airflow already imported; 0.1 measured
BATCHES = ("batch_image_inference", "solar_cells_weekly")
HEAVY = {
    "pandas",
    "numpy",
    "torch",
    "pyarrow",
    "requests",
    "great_expectations",
    "imagebatch",
    "docker",
    "kubernetes",
}


@pytest.fixture
def bag(operator: str, installation: dict[str, str]) -> Any:
    """Parse the real folder of DAG files."""
    assert operator
    assert installation
    return DagBag(dag_folder=str(ROOT / "dags"))


def test_every_dag_file_parses_quickly(bag: Any, operator: str) -> None:
    """No import error, the expected DAGs, and no file that slows the DAG processor down."""
    assert bag.import_errors == {}
    assert set(bag.dags) - {"imagebatch_orphans"} == {*BATCHES, "imagebatch_prune", "imagebatch_trends"}
    assert ("imagebatch_orphans" in bag.dags) == (operator == "docker")
    assert max(stat.duration for stat in bag.dagbag_stats) < timedelta(seconds=PARSE_SECONDS)


def test_every_dag_is_documented_owned_and_bounded(bag: Any) -> None:
    """What the UI shows and what keeps a night from overlapping the next is there for each DAG."""
    for dag in bag.dags.values():
        assert dag.doc_md, dag.dag_id
        assert dag.description
        assert "imagebatch" in dag.tags
        assert dag.owner == "imagebatch"
        assert (dag.catchup, dag.max_active_runs) == (False, 1)
        assert all(task.doc_md for task in dag.tasks)
        # A person's answer has a time of its own.
        assert all(task.execution_timeout or task.response_timeout for task in dag.tasks)
    for dag in map(bag.dags.get, BATCHES):
        assert dag.task_dict["score"].partial_kwargs["pool"] == "model_api"
        assert [outlet.name for outlet in dag.task_dict["postprocess"].outlets] == [
            f"{dag.dag_id}.predictions"
        ]


def test_the_graph_is_the_designs(bag: Any) -> None:
    """Each task waits for what it needs; the predictions' check also runs when no shard was left to score."""
    dag = bag.dags["batch_image_inference"]
    upstream = {task.task_id: task.upstream_task_ids for task in dag.tasks}
    assert upstream == {
        "preprocess": set(),
        "check_manifest": {"preprocess"},
        "plan": {"preprocess", "check_manifest"},
        "score": {"plan"},
        "check_predictions": {"score", "check_manifest"},
        "postprocess": {"check_predictions"},
        "report": {"postprocess"},
        "finished": {"postprocess", "report"},
    }
    assert dag.task_dict["check_predictions"].trigger_rule == "none_failed_min_one_success"


def test_the_pool_of_the_dags_is_the_one_that_is_installed() -> None:
    """airflow/pools.json declares the pool that `score` asks for."""
    pools = json.loads((ROOT / "airflow" / "pools.json").read_text())
    assert pools["model_api"]["slots"] >= 1


def test_parsing_imports_nothing_heavy() -> None:
    """The DAG files and what they import cost no pandas, torch or client of an engine, nor the pipeline."""
    code = (
        "import sys; import airflow.sdk; before = set(sys.modules)\n"
        "import batch_image_inference, imagebatch_maintenance\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    environment = os.environ | {"IMAGEBATCH_OPERATOR": "process", "PYTHONPATH": str(ROOT / "dags")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "imagebatch_dags" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("shard_size", 0),
        ("shard_size", 100_001),
        ("shard_size", "many"),
        ("top_k", 101),
        ("limit", -1),
        ("max_failures", "101%"),
        ("max_failures", "-1"),
        ("max_failures", "5\n"),
        ("max_class_share", 0),
        ("max_class_share", 1.5),
        ("allow_empty", "yes"),
        ("max_image_bytes", 0),
        ("model", "../../etc"),
        ("model", ""),
        ("model_version", "a b"),
        ("pack_size", 1025),
        ("in_flight", 0),
        ("input", "x" * 5000),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_form(default_dag: Any, name: str, bad: Any) -> None:
    """The trigger form refuses what the command line would refuse."""
    default_dag.params.validate()
    with pytest.raises(ParamValidationError):
        default_dag.params[name] = bad


def test_every_param_says_what_it_is(default_dag: Any) -> None:
    """Whoever triggers a run by hand reads a title and a description at every field."""
    for name, param in default_dag.params.items():
        shown = default_dag.params.get_param(name)
        assert shown.schema["title"], param
        assert shown.description


def test_the_plan_is_one_task_per_shard_up_to_airflows_limit() -> None:
    """0, 3 and 1,024 shards are planned; more is refused with the shard size that would do."""
    assert plan.function({"shards": 0, "accepted": 0}) == []
    assert plan.function({"shards": 3, "accepted": 30}) == [0, 1, 2]
    assert len(plan.function({"shards": 1024, "accepted": 5000})) == 1024
    with pytest.raises(AirflowFailException, match="shard size of at least 1954"):
        plan.function({"shards": 3907, "accepted": 2_000_000})


def test_the_example_needs_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the inputs are at their usual place, as in containers, every DAG file parses all the same."""
    monkeypatch.delenv("IMAGEBATCH_INPUTS", raising=False)
    bag = DagBag(dag_folder=str(ROOT / "dags" / "pipelines_from_yaml.py"))
    assert bag.import_errors == {}
    assert bag.dags["solar_cells_weekly"].params["input"] == "/data/inputs/solar-cells/images"


def test_the_form_can_be_sent_as_it_stands(bag: Any) -> None:
    """The UI refuses an empty field unless its type allows null: no default is such a field."""
    for dag in bag.dags.values():
        for name, param in dag.params.dump().items():
            kinds = dag.params.get_param(name).schema["type"]
            assert param not in ("", None) or "null" in kinds, (dag.dag_id, name)
