"""What the exit code and the last line of a stage mean to Airflow (docs/reference/protocol.md)."""

import json
from collections.abc import Iterable
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

NOTHING_TO_DO = 99
WRONG_CONFIGURATION = 78
HOPELESS = {
    2: "wrong usage: the DAG and the image are not of the same version",
    65: "data refused: a quality gate failed, or more failures than allowed",
    WRONG_CONFIGURATION: "wrong configuration",
}
WORTH_A_RETRY = {
    69: "model API not available",
    74: "storage failed",
    75: "another attempt holds this run or shard",
    137: "killed: out of memory, or by an operator of this machine",
}


def last_result(lines: Iterable[str]) -> dict[str, Any] | None:
    """Find the result of a stage in its output.

    Args:
        lines: output lines in order; log lines may be among them.

    Returns:
        The last line that is a JSON object naming its `stage`, or None.
    """
    for line in reversed(list(lines)):
        text = line.strip()
        if not text.startswith("{"):
            continue
        try:
            result = json.loads(text)
        except ValueError:
            continue
        if isinstance(result, dict) and "stage" in result:
            return result
    return None


def raise_for_exit(stage: str, code: int, complaint: str = "") -> None:
    """Turn an exit code into Airflow's verdict on the task.

    Args:
        stage: the stage's name, for the message.
        code: exit code, negative where a signal ended the process.
        complaint: last line that the stage wrote to standard error.

    Raises:
        AirflowSkipException: 99, nothing to do.
        AirflowFailException: 2, 65, 78: a retry would meet the same end, so none is made.
        AirflowException: anything else but 0: Airflow retries.
    """
    if code == 0:
        return
    if code == NOTHING_TO_DO:
        raise AirflowSkipException(f"{stage}: nothing to do")
    reason = HOPELESS.get(code) or WORTH_A_RETRY.get(code) or "ended unexpectedly"
    message = f"{stage}: exit code {code} ({reason}){': ' + complaint[:1000] if complaint else ''}"
    raise (AirflowFailException if code in HOPELESS else AirflowException)(message)
