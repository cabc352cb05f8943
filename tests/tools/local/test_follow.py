from typing import Any

import pytest

from tools.local.follow import summary

START = "2026-01-31T02:00:00Z"
LATER = "2026-01-31T02:00:10Z"
NOW = 1769824810.0  # LATER


def task(
    name: str, state: str | None, index: int = -1, begun: str | None = None, ended: str | None = None
) -> Any:
    """Build a task instance as the API lists it."""
    return {"task_id": name, "state": state, "map_index": index, "start_date": begun, "end_date": ended}


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        ([], "0/7 stages"),
        ([task("preprocess", "running", begun=START)], "0/7 stages, running: preprocess"),
        ([task("preprocess", "success"), task("score", None)], "1/7 stages"),
        (
            [
                *(task(name, "success") for name in ("preprocess", "check_manifest", "plan")),
                task("score", "success", 0, START, LATER),
                task("score", "running", 1, START),
            ],
            "3/7 stages, running: score, shards 1/2, 50 images/s, 10 s left",
        ),
        (
            [task("score", "success", 0, START, START), task("score", "success", 1, START, LATER)],
            "1/7 stages, shards 2/2, 100 images/s",
        ),
    ],
)
def test_progress_says_stages_shards_rate_and_time_left(tasks: list[Any], line: str) -> None:
    """The line is computed from what the API answers, and speaks of no rate before a shard is done."""
    assert summary(tasks, images=1000, now=NOW) == line


def test_an_unknown_number_of_images_has_no_rate() -> None:
    """Before preprocess has ended nothing is made up."""
    assert summary([task("score", "success", 0, START, LATER)], images=0, now=NOW) == "1/7 stages, shards 1/1"
