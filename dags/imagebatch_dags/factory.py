"""A batch DAG from a `Pipeline`: the graph that every batch shares."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, BaseOperator, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.timetables.trigger import CronTriggerTimetable

from imagebatch_dags.alerts import deadlines
from imagebatch_dags.asked import Asked, params_of, refuse_unknown
from imagebatch_dags.broker import check_visibility
from imagebatch_dags.links import ReportLink, ResultLink
from imagebatch_dags.night import Night
from imagebatch_dags.pipeline import Pipeline
from imagebatch_dags.run_name import FIRST, run_folder
from imagebatch_dags.stage import mapped_stage, stage

POOL = "model_api"  # airflow/pools.json: requests of all DAGs to the model server, in slots
MOST_SHARDS = 1024  # Airflow's core.max_map_length: one task instance per shard

DOCS = """
Scores every image of an input with a served model and writes `predictions.csv`.

| task | does |
|---|---|
| `preprocess` | lists and hashes the images, cuts them into shards, pins the model |
| `check_manifest` | stops here if the listing is not sane |
| `check_images` | only with `max_suspect_images`: stops here if too many of a sample are blank, dark … |
| `plan` | one mapped task per shard |
| `score` | asks the model server about one shard |
| `check_predictions` | stops here if the predictions are not sane |
| `postprocess` | writes the CSV, the failures and the certificate |
| `report` | one page about the run; red where it could not be made, which the run survives |
| `finished` | does nothing: its state, and the run's with it, is that of `postprocess` |

The run's folder is named after the DAG and Airflow's run id: the result of `preprocess` says it (`run_id`).
Clearing a task and running it again continues where it stopped. Exit codes 2, 65 and 78 fail at once, and so
does an input without any image unless `allow_empty` is set; others are retried. An empty field of the form
stands for the pipeline's own value. A run that is cleared after it has succeeded has no deadline any more.
"""


def build_dag(pipeline: Pipeline, *, auto_register: bool = True) -> DAG:
    """Build the DAG of a pipeline.

    Args:
        pipeline: names, defaults and limits.
        auto_register: let Airflow find it in the file that is being parsed.

    Returns:
        The DAG; every option of the pipeline with a title is a Param of the trigger form.

    Raises:
        PipelineError: its stages may run longer than the installation's broker allows.
    """
    check_visibility(pipeline)
    asked = Asked(pipeline)
    night = Night(pipeline, asked)
    with DAG(
        dag_id=pipeline.dag_id,
        description=pipeline.description,
        doc_md=DOCS,
        schedule=_schedule(pipeline.schedule),
        catchup=False,
        max_active_runs=1,
        auto_register=auto_register,
        params=params_of(pipeline),
        tags=["imagebatch", *pipeline.tags],
        default_args={
            "owner": pipeline.owner or "imagebatch",
            "execution_timeout": timedelta(minutes=pipeline.stage_timeout_minutes),
        },
        deadline=deadlines(
            timedelta(minutes=pipeline.warn_after_minutes), timedelta(minutes=pipeline.late_after_minutes)
        )
        or None,
        user_defined_macros={
            "run_folder": run_folder,
            "source": asked.source,
            "flag": asked.flag,
            "speaks_as": night.speaks_as,
            "next_run": night.next_run,
            "deadline_of": night.deadline_of,
        },
        render_template_as_native_obj=False,
    ) as dag:
        _tasks(pipeline, asked)
    return dag


def _tasks(pipeline: Pipeline, asked: Asked) -> None:
    preprocess = stage(
        FIRST,
        ["preprocess", "{{ source(params, dag_run) }}", *asked.flags("preprocess")],
        retries=pipeline.retries,
        pre_execute=refuse_unknown,
        doc_md="Lists the input, hashes it, reads image headers, cuts it into shards and pins the model.",
    )
    check_manifest = stage(
        "check_manifest",
        ["check", "--suite=manifest"],
        retries=pipeline.retries,
        doc_md="Great Expectations on the manifest. Exit code 65 stops the run before anything is scored.",
    )
    shards = plan(preprocess.output)  # type: ignore[arg-type] # an XComArg stands for its value
    score = mapped_stage(
        "score",
        ["score", *asked.flags("score"), "--deadline={{ deadline_of(dag_run, params) }}"],
        shards,
        retries=pipeline.retries,
        pool=POOL,
        max_active_tis_per_dagrun=pipeline.parallel_shards,
        map_index_template="shard {{ '%05d' % task.shard }}",
        doc_md="Asks the model server about every image of one shard. What is scored is not scored again.",
    )
    check_predictions = stage(
        "check_predictions",
        ["check", "--suite=predictions"],
        retries=pipeline.retries,
        # No shard at all (every image was refused) skips `score`, and the run still gets its certificate.
        trigger_rule="none_failed_min_one_success",
        doc_md="Great Expectations on the predictions. Exit code 65 stops the run before the CSV is written.",
    )
    postprocess = stage(
        "postprocess",
        ["postprocess"],
        retries=pipeline.retries,
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
    if pipeline.max_suspect_images:
        check_manifest >> _check_images(pipeline, asked) >> check_predictions
    _report(postprocess, asked)


def _check_images(pipeline: Pipeline, asked: Asked) -> BaseOperator:
    return stage(
        "check_images",
        ["check", "--suite=images", *asked.flags("check_images")],
        retries=pipeline.retries,
        doc_md="Looks at a sample of the images, beside scoring. Exit code 65 stops the run before the CSV is"
        " written.",
    )


def _report(postprocess: BaseOperator, asked: Asked) -> None:
    report = stage(
        "report",
        ["report", *asked.flags("report")],
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
