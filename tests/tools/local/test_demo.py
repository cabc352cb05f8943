import pytest

from tools.airflow_api import AirflowError
from tools.local import demo


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (TimeoutError("timed out"), 69, "Airflow does not answer (timed out)"),
        (ConnectionRefusedError(111, "Connection refused"), 69, "Airflow does not answer"),
        (AirflowError("Airflow answers 500 to /auth/token: no"), 1, "Airflow answers 500"),
    ],
)
def test_an_airflow_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    text: str,
) -> None:
    """69 where a later try may help, and no traceback."""

    def login() -> None:
        raise error

    monkeypatch.setattr(demo, "airflow_api", login)
    with pytest.raises(SystemExit) as caught:
        demo.score(512)
    (line,) = capsys.readouterr().err.splitlines()
    assert (caught.value.code, text in line) == (code, True)
