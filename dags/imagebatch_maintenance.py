"""What keeps an installation tidy and looked after: orphaned containers, old runs, slow changes.

`imagebatch_trends` looks back over all runs every morning and tells what has changed: on from the start too.
`imagebatch_orphans` (where stages are containers) ends only what cannot count: it is on from the start.
`imagebatch_prune` removes runs: it waits until somebody has looked at its days and switched it on.
"""

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.timetables.trigger import CronTriggerTimetable
from imagebatch_dags.asked import refuse_unknown
from imagebatch_dags.notifiers import Notice, notify
from imagebatch_dags.run_name import run_folder
from imagebatch_dags.stage import maintenance

ORPHANS = """
Stops and removes containers of stages that work for nobody: a later attempt has taken over, or their task or
run has ended. They stay behind when a worker is killed. What they write cannot count, so the minutes until
they are found are harmless.
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
    # Here, for the docker SDK would cost every parse of this file.
    from imagebatch_dags.container import installation  # noqa: PLC0415 - the docker SDK costs every parse
    from imagebatch_dags.orphans import end, engine_client, orphans, stage_containers  # noqa: PLC0415 - the docker SDK costs every parse

    instance: Any = get_current_context()["ti"]
    client = engine_client()
    seen = stage_containers(client, installation())
    found = orphans(seen, instance.get_dr_count, instance.get_ti_count)
    return {"seen": len(seen), "stopped": sum(end(client, each, reason) for each, reason in found)}


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


if os.environ.get("IMAGEBATCH_OPERATOR") == "docker":
    with _dag(
        "imagebatch_orphans",
        "*/5 * * * *",
        doc_md=ORPHANS,
        description="Stops containers of stages that work for nobody",
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
