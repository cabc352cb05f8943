"""What keeps an installation tidy: containers that nobody waits for, runs that nobody needs any more.

`imagebatch_orphans` (where stages are containers) ends only what cannot count: it is on from the start.
`imagebatch_prune` removes runs: it waits until somebody has looked at its days and switched it on.
"""

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.timetables.trigger import CronTriggerTimetable
from imagebatch_dags.stage import maintenance, stage_run_id

ORPHANS = """
Stops and removes containers of stages that work for nobody: a later attempt has taken over, or their task or
run has ended. They stay behind when a worker is killed. What they write cannot count, so the minutes until
they are found are harmless.
"""
PRUNE = """
Removes finished runs that were last written to more than `keep_days` days ago, never the newest success of an
input and model, and what killed processes left in the others. Trigger it with *Dry run* to see what would go.
"""


@task(
    retries=2,
    retry_delay=timedelta(seconds=30),
    execution_timeout=timedelta(minutes=4),
    doc_md=ORPHANS,
)
def stop_orphans() -> dict[str, int]:
    """End what works for nobody.

    Returns:
        Containers `seen` and `stopped`.
    """
    # Here, for the docker SDK would cost every parse of this file.
    from imagebatch_dags.container import installation  # noqa: PLC0415 - see above
    from imagebatch_dags.orphans import end, engine_client, orphans, stage_containers  # noqa: PLC0415 - see above

    instance: Any = get_current_context()["ti"]
    client = engine_client()
    seen = stage_containers(client, installation())
    found = orphans(seen, instance.get_dr_count, instance.get_ti_count)
    return {"seen": len(seen), "stopped": sum(end(client, each, reason) for each, reason in found)}


def _dag(dag_id: str, cron: str, **arguments: Any) -> DAG:
    return DAG(
        dag_id=dag_id,
        # Without the zero a DAG that is unpaused shortly after its time would run at once.
        schedule=CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0)),
        catchup=False,
        max_active_runs=1,
        tags=["imagebatch", "maintenance"],
        default_args={"owner": "imagebatch", "execution_timeout": timedelta(hours=2)},
        user_defined_macros={"stage_run_id": stage_run_id},
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
