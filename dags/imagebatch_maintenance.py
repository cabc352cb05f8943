"""What keeps an installation tidy and looked after: orphaned containers, old runs, slow changes.

`imagebatch_trends` looks back over all runs every morning and tells what has changed: on from the start too.
`imagebatch_orphans` (where stages are containers or pods) ends only what cannot count: on from the start.
`imagebatch_prune` removes runs: it waits until somebody has looked at its days and switched it on.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.timetables.trigger import CronTriggerTimetable
from imagebatch_dags.asked import refuse_unknown
from imagebatch_dags.notifiers import Notice, notify
from imagebatch_dags.orphans import StageContainer, orphans
from imagebatch_dags.places import installation
from imagebatch_dags.run_name import run_folder
from imagebatch_dags.stage import maintenance

ORPHANS = """
Stops and removes containers (or pods) of stages that work for nobody: a later attempt has taken over, or
their task or run has ended. They stay behind when a worker is killed and no retry waits for them. What they
write cannot count, so the minutes until they are found are harmless.
"""
TRENDS = """
Looks at the figures of the newest 60 runs of every pipeline, finds changes of level, steady slopes and weekly
patterns, writes `history.html`, and tells each change once to whoever hears of missed deadlines. Skipped
while no pipeline has 14 runs.
"""
PRUNE = """
Removes finished runs that were last written to more than `keep_days` days ago, never the newest success of an
input and model, and what killed processes left in the others. Trigger it with *Dry run* to see what would go.
"""


@task(
    retries=2,
    retry_delay=timedelta(seconds=30),
    execution_timeout=timedelta(minutes=4),
    pre_execute=refuse_unknown,
    doc_md=ORPHANS,
)
def stop_orphans() -> dict[str, int]:
    """End what works for nobody.

    Returns:
        Containers `seen` and `stopped`.
    """
    instance: Any = get_current_context()["ti"]
    seen, stop = _kubernetes() if os.environ["IMAGEBATCH_OPERATOR"] == "kubernetes" else _docker()
    found = orphans(seen, instance.get_dr_count, instance.get_ti_count)
    return {"seen": len(seen), "stopped": sum(stop(each, reason) for each, reason in found)}


def _docker() -> tuple[list[StageContainer], Callable[[StageContainer, str], bool]]:
    from imagebatch_dags.containers import end, engine_client, stage_containers  # noqa: PLC0415 - the docker SDK costs every parse

    client = engine_client()
    return stage_containers(client, installation()), partial(end, client)


def _kubernetes() -> tuple[list[StageContainer], Callable[[StageContainer, str], bool]]:
    from imagebatch_dags.pod import namespace  # noqa: PLC0415 - the cluster's client costs every parse
    from imagebatch_dags.pods import cluster, end_pod, stage_pods  # noqa: PLC0415 - the cluster's client costs every parse

    client, place = cluster().core_v1_client, namespace()
    seen = [each for each, _ in stage_pods(client, place, installation())]
    return seen, partial(end_pod, client, place)


@task(
    retries=3,
    retry_delay=timedelta(minutes=5),
    execution_timeout=timedelta(minutes=5),
    doc_md="Tells each change to the receivers of the installation, once.",
)
def tell(found: dict[str, Any]) -> int:
    """Tell what has changed.

    Args:
        found: the result of `imagebatch trends`.

    Returns:
        How many messages went out; what was told before is not told again.
    """
    told = 0
    for change in found["changes"]:
        key = f"trend {change['key']}"
        text = f"imagebatch trend: {change['text']}"
        told += len(notify(Notice(text, "warn", "changed", key, key, "docs/how-to/history.md#trends")))
    return told


def _dag(dag_id: str, cron: str, **arguments: Any) -> DAG:
    return DAG(
        dag_id=dag_id,
        # Without the zero a DAG that is unpaused shortly after its time would run at once.
        schedule=CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0)),
        catchup=False,
        max_active_runs=1,
        tags=["imagebatch", "maintenance"],
        default_args={"owner": "imagebatch", "execution_timeout": timedelta(hours=2)},
        user_defined_macros={"run_folder": run_folder},
        **arguments,
    )


if os.environ.get("IMAGEBATCH_OPERATOR") in {"docker", "kubernetes"}:
    with _dag(
        "imagebatch_orphans",
        "*/5 * * * *",
        doc_md=ORPHANS,
        description="Stops containers and pods of stages that work for nobody",
        is_paused_upon_creation=False,
    ) as orphans_dag:
        stop_orphans()

with _dag(
    "imagebatch_trends",
    "30 6 * * *",
    doc_md=TRENDS,
    description="Tells what has changed over the runs",
    is_paused_upon_creation=False,
) as trends_dag:
    trends = maintenance("trends", ["trends"], doc_md=TRENDS)
    history = maintenance(
        "history",
        ["history"],
        trigger_rule="none_failed",  # also where there is too little for trends
        doc_md="Writes `history.html`, with the changes on top.",
    )
    trends >> [tell(trends.output), history]  # type: ignore[arg-type] # an XComArg stands for its value

with _dag(
    "imagebatch_prune",
    "30 5 * * *",
    doc_md=PRUNE,
    description="Removes old runs",
    is_paused_upon_creation=True,
    params={
        "keep_days": Param(30, type="number", minimum=0, maximum=36_500, title="Days to keep"),
        "unfinished": Param(
            default=False,
            type="boolean",
            title="Unfinished too",
            description="They cannot be continued then.",
        ),
        "dry_run": Param(
            default=False, type="boolean", title="Dry run", description="Only say what would be removed."
        ),
    },
) as prune_dag:
    maintenance(
        "prune",
        [
            "prune",
            "--keep-days={{ params.keep_days }}",
            "--{{ '' if params.unfinished else 'no-' }}unfinished",
            "--{{ '' if params.dry_run else 'no-' }}dry-run",
        ],
        doc_md=PRUNE,
    )
