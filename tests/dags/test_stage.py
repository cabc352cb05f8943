import re

import pytest
from imagebatch_dags.stage import stage, stage_run_id


@pytest.mark.parametrize(
    ("airflow", "folder"),
    [
        ("manual__2026-01-31T02:00:00.5+00:00", "manual__2026-01-31T02-00-00.5-00-00"),
        ("scheduled__2026-01-31", "scheduled__2026-01-31"),
        ("../../etc", "r..-..-etc"),
        ("_x", "r_x"),
        ("é", "r-"),
    ],
)
def test_run_ids_become_folder_names(airflow: str, folder: str) -> None:
    """Airflow's run id loses every character that the protocol does not allow."""
    assert stage_run_id(airflow) == folder


def test_long_run_ids_stay_different() -> None:
    """Two ids that differ only beyond the limit get two folders."""
    names = {stage_run_id("a" * 200 + end) for end in "xy"}
    assert len(names) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) for name in names)


def test_an_unknown_operator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt switch does not fall back to something else."""
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "podman")
    with pytest.raises(ValueError, match="process or docker"):
        stage("a", ["check"])


def test_every_stage_retries_with_growing_pauses(operator: str) -> None:
    """Both operators retry what is worth it, a while apart."""
    task = stage("a", ["check"])
    assert (task.retries, task.retry_exponential_backoff) == (3, 2.0), operator
    assert task.retry_delay.total_seconds() == 15
