"""A batch DAG from a `Pipeline`: the graph that every batch shares."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, BaseOperator, Param, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.timetables.trigger import CronTriggerTimetable
from croniter import croniter

from imagebatch_dags.alerts import deadlines
from imagebatch_dags.links import ReportLink, ResultLink
from imagebatch_dags.pipeline import Pipeline
from imagebatch_dags.run_name import FIRST, run_folder
from imagebatch_dags.stage import mapped_stage, stage

POOL = "model_api"  # airflow/pools.json: requests of all DAGs to the model server, in slots
MAY_BE_EMPTY = ["null", "string"]  # the form refuses an empty field of type string alone
MOST_SHARDS = 1024  # Airflow's core.max_map_length: one task instance per shard

DOCS = """
Scores every image of an input with a served model and writes `predictions.csv`.

| task | does |
|---|---|
| `preprocess` | lists and hashes the images, cuts them into shards, pins the model |
| `check_manifest` | stops here if the listing is not sane |
| `plan` | one mapped task per shard |
| `score` | asks the model server about one shard |
| `check_predictions` | stops here if the predictions are not sane |
| `postprocess` | writes the CSV, the failures and the certificate |
| `report` | one page about the run; red where it could not be made, which the run survives |
| `finished` | does nothing: its state, and the run's with it, is that of `postprocess` |

The run's folder is named after the DAG and Airflow's run id: it is the `run_id` of the result of `preprocess`.
Clearing a task and running it again continues where it stopped. Exit codes 2, 65 and 78 fail at once; others
are retried.
"""


def build_dag(pipeline: Pipeline) -> DAG:
    """Build the DAG of a pipeline.

    Args:
        pipeline: names, defaults and limits.

    Returns:
        The DAG; every default of the pipeline that shapes the result is a Param of the trigger form.
    """
    with DAG(
        dag_id=pipeline.dag_id,
        description=pipeline.description,
        doc_md=DOCS,
        schedule=_schedule(pipeline.schedule),
        catchup=False,
        max_active_runs=1,
        params=_params(pipeline),
        tags=["imagebatch", *pipeline.tags],
        default_args={
            "owner": "imagebatch",
            "execution_timeout": timedelta(minutes=pipeline.stage_timeout_minutes),
        },
        deadline=deadlines(
            timedelta(minutes=pipeline.warn_after_minutes), timedelta(minutes=pipeline.late_after_minutes)
        )
        or None,
        user_defined_macros={
            "run_folder": run_folder,
            "deadline_of": deadline_of,
            "next_run": partial(next_run_of, pipeline.schedule),
        },
        render_template_as_native_obj=False,
    ) as dag:
        _tasks(pipeline)
    return dag


def deadline_of(dag_run: Any, minutes: float) -> str:
    """Tell when a run is late, for the progress that a stage logs.

    Args:
        dag_run: of the task's context.
        minutes: after the time that the run was due.

    Returns:
        ISO 8601, with its offset.
    """
    due: datetime = dag_run.run_after
    return (due + timedelta(minutes=minutes)).isoformat()


def next_run_of(cron: str, dag_run: Any) -> str:
    """Tell when the run after this one is due, so that its absence is noticed.

    Args:
        cron: the schedule, in UTC.
        dag_run: of the task's context.

    Returns:
        ISO 8601, with its offset; empty where runs are made by hand only.
    """
    if not cron:
        return ""
    due: datetime = croniter(cron, dag_run.run_after).get_next(datetime)
    return due.isoformat()


def _tasks(pipeline: Pipeline) -> None:
    preprocess = stage(
        FIRST,
        [
            "preprocess",
            "--{{ 'manifest' if params.manifest else 'input' }}={{ params.manifest or params.input }}",
            "--model={{ params.model }}",
            "--model-version={{ params.model_version or '' }}",
            "--shard-size={{ params.shard_size }}",
            "--limit={{ params.limit }}",
            "--top-k={{ params.top_k }}",
            "--max-failures={{ params.max_failures }}",
        ],
        doc_md="Lists the input, hashes it, reads image headers, cuts it into shards and pins the model.",
    )
    check_manifest = stage(
        "check_manifest",
        ["check", "--suite=manifest"],
        doc_md="Great Expectations on the manifest. Exit code 65 stops the run before anything is scored.",
    )
    shards = plan(preprocess.output)  # type: ignore[arg-type] # an XComArg stands for its value
    score = mapped_stage(
        "score",
        [
            "score",
            "--pack-size={{ params.pack_size }}",
            "--in-flight={{ params.in_flight }}",
            f"--deadline={{{{ deadline_of(dag_run, {pipeline.late_after_minutes}) }}}}",
        ],
        shards,
        pool=POOL,
        max_active_tis_per_dagrun=pipeline.parallel_shards,
        map_index_template="shard {{ '%05d' % task.shard }}",
        doc_md="Asks the model server about every image of one shard. What is scored is not scored again.",
    )
    check_predictions = stage(
        "check_predictions",
        ["check", "--suite=predictions"],
        # No shard at all (every image was refused) skips `score`, and the run still gets its certificate.
        trigger_rule="none_failed_min_one_success",
        doc_md="Great Expectations on the predictions. Exit code 65 stops the run before the CSV is written.",
    )
    postprocess = stage(
        "postprocess",
        ["postprocess"],
        outlets=[
            Asset(
                name=f"{pipeline.dag_id}.predictions",
                uri=f"imagebatch://runs/{pipeline.dag_id}/predictions.csv",
            )
        ],
        doc_md="Writes predictions.csv, failures.csv and the certificate. The asset event names them.",
    )
    postprocess.operator_extra_links = (ResultLink(),)
    preprocess >> check_manifest >> shards >> score >> check_predictions >> postprocess
    check_manifest >> check_predictions
    _report(postprocess)


def _report(postprocess: BaseOperator) -> None:
    report = stage(
        "report",
        ["report"],
        retries=1,
        execution_timeout=timedelta(minutes=30),
        doc_md="Writes report.html, judges drift, keeps the run's figures. The table stands without it.",
    )
    report.operator_extra_links = (ReportLink(),)
    # A run ends as its last task: this one heeds `postprocess` alone, and no process is started for it.
    finished = EmptyOperator(
        task_id="finished",
        trigger_rule="one_success",
        doc_md="Ends the run as `postprocess` ended, whatever became of the report.",
    )
    postprocess >> report >> finished
    postprocess >> finished


@task(doc_md="Turns the number of shards into one mapped task each.")
def plan(preprocessed: dict[str, Any]) -> list[int]:
    """List the shard numbers, at most 1,024 of them.

    Args:
        preprocessed: the result of `preprocess`.

    Returns:
        0 to shards-1.

    Raises:
        AirflowFailException: more shards than Airflow maps.
    """
    shards = int(preprocessed["shards"])
    if shards > MOST_SHARDS:
        raise AirflowFailException(
            f"{shards} shards are more than {MOST_SHARDS}: trigger again with a shard size of at least "
            f"{-(-int(preprocessed['accepted']) // MOST_SHARDS)}"
        )
    return list(range(shards))


def _schedule(cron: str) -> CronTriggerTimetable | None:
    if not cron:
        return None
    # Without the zero a DAG that is unpaused shortly after its hour would run at once.
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))


def _params(pipeline: Pipeline) -> dict[str, Param]:
    name = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
    return {
        "input": Param(
            pipeline.input or None,
            type=MAY_BE_EMPTY,
            maxLength=4096,
            title="Input",
            description="Folder, single image or fsspec URI to list. Not used where a manifest is given.",
        ),
        "manifest": Param(
            pipeline.manifest or None,
            type=MAY_BE_EMPTY,
            maxLength=4096,
            title="Manifest",
            description="CSV or Parquet file with a column `uri` and, optionally, `image_id`.",
        ),
        "model": Param(
            pipeline.model,
            type="string",
            pattern=name,
            title="Model",
            description="Name of the served model.",
        ),
        "model_version": Param(
            pipeline.model_version or None,
            type=MAY_BE_EMPTY,
            pattern=r"^[A-Za-z0-9._-]{0,64}$",
            title="Model version",
            description="Empty: the server's default version.",
        ),
        "shard_size": _count(pipeline.shard_size, 1, 100_000, "Shard size", "Images per mapped task."),
        "limit": _count(0, 0, 100_000_000, "Limit", "Take only the first N images by id; 0 takes all."),
        "top_k": _count(pipeline.top_k, 1, 100, "Labels per image", "Most probable first."),
        "max_failures": Param(
            pipeline.max_failures,
            type="string",
            pattern=r"^(\d{1,9}|(100|\d{1,2})(\.\d+)?%)$",
            title="Failure limit",
            description="Failed and rejected images tolerated: a count (20) or a share (5%).",
        ),
        "pack_size": _count(128, 1, 1024, "Images per request", "Does not change the result."),
        "in_flight": _count(3, 1, 256, "Requests in flight", "Per shard. Does not change the result."),
    }


def _count(default: int, least: int, most: int, title: str, description: str) -> Param:
    return Param(default, type="integer", minimum=least, maximum=most, title=title, description=description)
