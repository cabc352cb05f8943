import pytest
from imagebatch_dags.stage import stage


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
