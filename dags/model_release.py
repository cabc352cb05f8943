"""`model_release`: from a training to the served champion, with a person's word before it takes over.

It is there where `IMAGEBATCH_TRAIN_BIN` names this machine's `imagebatch-train` and stages are processes: a
training needs the images, the handler's files and the model store at hand (docs/how-to/release-a-model.md).
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param, task
from imagebatch_dags.asked import refuse_unknown
from imagebatch_dags.run_name import run_name
from imagebatch_dags.stage import training

DOCS = """
Trains, holds the new model to its gates, serves it beside the champion, and lets it take over.

| task | does |
|---|---|
| `challenger` | trains where something has changed, archives, holds the archive to its gates |
| `serve` | registers it beside the version that serves, asks about its golden images |
| `shadow` | asks both versions about images of the newest run; a page shows where they differ |
| `asked` | goes on to `approve`, or with *Approval* off to `promote` |
| `approve` | waits for a person, three days at most |
| `promote` | makes it the server's default, and then the registry's champion |
| `withdraw` | takes back a challenger that has not become champion |

A task that fails leaves the old version serving and the new one unregistered. To go back afterwards:
`imagebatch-train release --rollback`. A batch keeps the version that it has begun with.
"""
ANSWERED_IN = timedelta(days=3)
BODY = """{{ ti.xcom_pull(task_ids='shadow')['shadow']['said'] }}

{% for gate in ti.xcom_pull(task_ids='challenger')['gates']['gates'] %}
- **{{ gate.name }}**: {{ gate.sentence }}
{% endfor %}
"""


def page(dag_run: Any) -> str:
    """Name the page that shows where two versions differ; a macro.

    Args:
        dag_run: of the task's context.
    """
    home = os.environ.get("AIRFLOW_HOME") or str(Path.home() / "airflow")
    folder = os.environ.get("IMAGEBATCH_RELEASE_PAGES") or f"{home}/releases"
    return f"{folder}/{run_name(dag_run.dag_id, dag_run.run_id)}.html"


def step(task_id: str, *arguments: str, doc_md: str, **kwargs: Any) -> Any:
    """Build the task that does the release up to one of its steps."""
    words = ["release", "--json", *arguments, "model.version={{ params.version }}"]
    return training(task_id, words, doc_md=doc_md, **kwargs)


@task.branch(
    doc_md="Asks a person, unless the run was triggered without.", execution_timeout=timedelta(minutes=5)
)
def asked(approval: object) -> str:
    """Choose what follows.

    Args:
        approval: the Param, as a template gives it.

    Returns:
        The next task.
    """
    return "promote" if str(approval) == "False" else "approve"


def build() -> DAG:
    """Build the DAG."""
    with DAG(
        dag_id="model_release",
        description="Trains a model, proves it, and lets it take over from the champion",
        doc_md=DOCS,
        schedule=None,
        catchup=False,
        max_active_runs=1,
        tags=["imagebatch", "release"],
        default_args={"owner": "imagebatch"},
        user_defined_macros={"page": page},
        params={
            "version": Param(
                "next",
                type="string",
                pattern=r"^[A-Za-z0-9._-]{1,64}$(?!\n)",
                title="Version",
                description="On the model server; next: that of these weights, or the one after the newest.",
            ),
            "approval": Param(
                default=True,
                type="boolean",
                title="Approval",
                description="Wait for a person before the new version takes over.",
            ),
        },
    ) as dag:
        _tasks()
    return dag


def _tasks() -> None:
    challenger = step(
        "challenger",
        "--until=gates",
        pre_execute=refuse_unknown,
        execution_timeout=timedelta(hours=12),
        doc_md="Trains, archives and judges. Exit code 65: a gate has stopped it.",
    )
    serve = step(
        "serve",
        "--until=probe",
        doc_md="Serves the challenger beside the champion, and asks about golden images.",
    )
    shadow = step(
        "shadow",
        "--until=shadow",
        f"--shadow-runs={os.environ.get('IMAGEBATCH_RUNS_URI', 'var/runs')}",
        "--shadow-page={{ page(dag_run) }}",
        doc_md="Compares both versions on images of the newest run.",
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Shall version {{ ti.xcom_pull(task_ids='shadow')['archive']['version'] }} take over?",
        body=BODY,
        response_timeout=ANSWERED_IN,
        execution_timeout=None,  # the operator would take it for the time to answer
        doc_md="Waits for a person: *Approve*, or *Reject*, which takes the challenger back.",
    )
    promote = step(
        "promote",
        trigger_rule="none_failed_min_one_success",
        doc_md="Makes it the default of the server, and then the champion of the registry.",
    )
    withdraw = step(
        "withdraw",
        "--withdraw",
        trigger_rule="all_done",
        doc_md="Takes back a challenger that has not become champion; where there is none it does nothing.",
    )
    finished = EmptyOperator(
        task_id="finished",
        trigger_rule="none_failed",
        execution_timeout=timedelta(minutes=5),
        doc_md="Ends the run as `promote` ended; a rejected challenger is no failure.",
    )
    choice = asked("{{ params.approval }}")
    challenger >> serve >> shadow >> choice >> [approve, promote]
    approve >> promote >> [withdraw, finished]


if os.environ.get("IMAGEBATCH_TRAIN_BIN") and os.environ.get("IMAGEBATCH_OPERATOR", "process") == "process":
    dag: DAG = build()
