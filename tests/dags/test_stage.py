import pytest
from imagebatch_dags.stage import stage


@pytest.fixture(params=["process", "docker", "kubernetes"])
def operator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose each operator in turn, the way an installation does."""
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", request.param)
    monkeypatch.setenv("IMAGEBATCH_KUBERNETES_RUNS", "imagebatch-runs")
    return str(request.param)


def test_an_unknown_operator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt switch does not fall back to something else."""
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "podman")
    with pytest.raises(ValueError, match="process, docker or kubernetes"):
        stage("a", ["check"])


def test_every_stage_retries_with_growing_pauses(operator: str) -> None:
    """All operators retry what is worth it, a while apart."""
    task = stage("a", ["check"])
    assert (task.retries, task.retry_exponential_backoff) == (3, 2.0), operator
    assert task.retry_delay.total_seconds() == 15


def test_every_stage_is_let_in_by_the_model_server(monkeypatch: pytest.MonkeyPatch, operator: str) -> None:
    """Where token and authorities lie is passed on; the token itself stands in no serialized DAG."""
    told = {
        "IMAGEBATCH_API_TOKEN_FILE": "/run/imagebatch/keys/token",
        "IMAGEBATCH_API_TOKEN_IN_CLEAR": "true",
        "IMAGEBATCH_API_CA_FILE": "/run/imagebatch/keys/ca.pem",
    }
    for name, value in {**told, "IMAGEBATCH_API_TOKEN": "s3cr3t"}.items():
        monkeypatch.setenv(name, value)
    task = stage("a", ["check"])
    assert told.items() <= task.environment.items(), operator
    assert "s3cr3t" not in str(vars(task))


def test_seconds_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a warm process waits is a whole number, and the message says so."""
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "process")
    monkeypatch.setenv("IMAGEBATCH_WARM_SECONDS", "soon")
    with pytest.raises(ValueError, match="'soon': set it to whole seconds"):
        stage("a", ["check"])
