import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from imagebatch_dags.outcome import last_result, raise_for_exit


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (2, AirflowFailException),
        (65, AirflowFailException),
        (78, AirflowFailException),
        (99, AirflowSkipException),
        (69, AirflowException),
        (74, AirflowException),
        (75, AirflowException),
        (1, AirflowException),
        (-9, AirflowException),
    ],
)
def test_each_exit_code_has_the_protocols_verdict(code: int, verdict: type[Exception]) -> None:
    """Hopeless codes end the task, 99 skips it, everything else is retried."""
    with pytest.raises(verdict) as raised:
        raise_for_exit("score", code, "the reason")
    assert type(raised.value) is verdict


def test_success_raises_nothing() -> None:
    """Exit code 0 is no exception."""
    raise_for_exit("score", 0)


def test_the_error_is_bounded_and_names_stage_code_and_reason() -> None:
    """A stage that complains at length still gives one readable message."""
    with pytest.raises(AirflowFailException, match=r"check: exit code 65 \(data refused.*: x") as raised:
        raise_for_exit("check", 65, "x" * 100_000)
    assert len(str(raised.value)) < 1200


def test_the_result_is_found_among_log_lines() -> None:
    """In a container's merged output a log line may come last, and may itself be JSON."""
    lines = [
        '{"stage": "score", "predicted": 1}',
        '{"stage": "score", "predicted": 2}',
        '{"event": "done", "level": "info"}',
        "{broken",
        "[1]",
        "",
    ]
    assert last_result(lines) == {"stage": "score", "predicted": 2}


def test_no_result_is_none() -> None:
    """Output without a result is not an error: the exit code decides."""
    assert last_result(["hello", '{"a": 1}']) is None
