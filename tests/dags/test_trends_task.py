"""The DAG `imagebatch_trends`: what is found is told once."""

import runpy
from pathlib import Path
from typing import Any

MAINTENANCE = Path(__file__).resolve().parents[2] / "dags" / "imagebatch_maintenance.py"
FALL = {
    "key": "batch throughput level down night-30",
    "text": "The throughput fell from 238 to 195 images/s.",
}


def test_a_change_is_told_once_whatever_its_figures_become(webhook: list[dict[str, Any]]) -> None:
    """The next morning's sentence differs in a digit; the key is the same, and nobody is told again."""
    tell = runpy.run_path(str(MAINTENANCE))["tell"].function
    assert tell({"changes": [FALL]}) == 1
    assert tell({"changes": [FALL | {"text": "The throughput fell from 238 to 194 images/s."}]}) == 0
    assert tell({"changes": [FALL, FALL | {"key": "batch brightness level down night-31"}]}) == 1
    assert [body["text"] for body in webhook] == [f"imagebatch trend: {FALL['text']}"] * 2
    assert webhook[0]["key"] == f"trend {FALL['key']}"
    assert webhook[0]["page"] == "docs/how-to/history.md#trends"


def test_the_page_is_written_where_there_is_too_little_for_trends(operator: str) -> None:
    """`history` also follows a skipped `trends`; `tell` does not."""
    dag = runpy.run_path(str(MAINTENANCE))["trends_dag"]
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        "trends": set(),
        "history": {"trends"},
        "tell": {"trends"},
    }, operator
    rules = {name: task.trigger_rule.value for name, task in dag.task_dict.items()}
    assert (rules["history"], rules["tell"]) == ("none_failed", "all_success")
