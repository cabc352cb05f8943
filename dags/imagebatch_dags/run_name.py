"""The name of a run's folder: one for each run of each DAG, and no two runs in one folder."""

import hashlib
import re
from typing import Any
from urllib.parse import quote

# What `imagebatch --run-id` takes (docs/reference/protocol.md): fit for folders, object keys and addresses.
LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
FIRST = "preprocess"  # the task that begins a run, and names its folder in its result
# Neither begins a coded character, for that is a dot and two of 0-9A-F.
BETWEEN, CUT = ".-", ".x"
LONGEST_DAG, LONGEST_RUN = 40, 51  # characters that stay readable where a name is too long as a whole
DIGITS = 32  # of SHA-256: half of it


def run_name(dag_id: str, run_id: str) -> str:
    """Name the folder of a run.

    Args:
        dag_id: such as `batch_image_inference`. Two DAGs of one clock time have runs of one id.
        run_id: Airflow's, such as `scheduled__2026-01-31T02:00:00+00:00`.

    Returns:
        `batch_image_inference.-scheduled__2026-01-31T02.3A00.3A00.2B00.3A00`: both ids, coded as in a URI
        with a dot for the `%`, so that `urllib.parse.unquote(part.replace(".", "%"))` gives each of them
        back. A name that would be longer than 128 characters, or begin with another character than a letter
        or digit, is cut and made unique again by a digest of both.
    """
    dag, run = coded(dag_id), coded(run_id)
    name = f"{dag}{BETWEEN}{run}"
    if LEGAL.fullmatch(name):
        return name
    both = f"{len(dag_id)} {dag_id} {run_id}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(both).hexdigest()[:DIGITS]
    first = "" if dag[:1].isalnum() else "r"
    # A cut through a coded character leaves no dot behind: two dots in a row look like the folder above.
    dag, run = dag[:LONGEST_DAG].rstrip("."), run[:LONGEST_RUN].rstrip(".")
    return f"{first}{dag}{BETWEEN}{run}{CUT}{digest}"


def coded(text: str) -> str:
    """Write every character but letters, digits, `_` and `-` as a dot and two hexadecimal digits a byte."""
    as_uri = quote(text, safe="", errors="surrogatepass")
    return as_uri.replace(".", "%2E").replace("~", "%7E").replace("%", ".")


def run_folder(dag_run: Any, ti: Any) -> str:
    """Name the folder that a run works in; a macro of the DAGs.

    Args:
        dag_run: of the task's context.
        ti: of the task's context.

    Returns:
        What the run's first task has named, and only in that task what `run_name` says: a run that began
        under an older version of this file is finished where it began.
    """
    if ti.task_id != FIRST:
        begun = ti.xcom_pull(task_ids=FIRST, map_indexes=-1)
        name = begun.get("run_id") if isinstance(begun, dict) else None
        if isinstance(name, str) and LEGAL.fullmatch(name):
            return name
    return run_name(dag_run.dag_id, dag_run.run_id)
