"""One run of one DAG, one folder."""

from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from imagebatch_dags.run_name import BETWEEN, CUT, LEGAL, run_folder, run_name

# Whatever may be in Airflow's database, and what is near to each other.
IDS = st.text(st.characters(), min_size=1, max_size=250) | st.text("ab._-:+/%~ 2E", min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("dag", "run", "folder"),
    [
        ("batch", "scheduled__2026-01-31", "batch.-scheduled__2026-01-31"),
        (
            "batch",
            "manual__2026-01-31T02:00:00.5+00:00",
            "batch.-manual__2026-01-31T02.3A00.3A00.2E5.2B00.3A00",
        ),
        ("batch", "../../etc", "batch.-.2E.2E.2F.2E.2E.2Fetc"),
        ("batch", "é", "batch.-.C3.A9"),
    ],
)
def test_dag_and_run_become_a_folders_name(dag: str, run: str, folder: str) -> None:
    """Both can be read in it, and no character of it means anything to a path or an address."""
    assert run_name(dag, run) == folder


@given(IDS, IDS)
@example("x" * 250, "y" * 250)
@example("_weekly", "manual__1")
@example("\ud800", "\udfff")
def test_every_name_is_legal_and_gives_both_ids_back(dag: str, run: str) -> None:
    """What a name says is one DAG and one run; where it was cut, a digest of both stands in it."""
    name = run_name(dag, run)
    assert LEGAL.fullmatch(name)
    assert ".." not in name
    if CUT in name:
        return
    said = [unquote(part.replace(".", "%"), errors="surrogatepass") for part in name.split(BETWEEN)]
    assert said == [dag, run]


@given(IDS, IDS, IDS, IDS)
@example("a", "b.-c", "a.-b", "c")
@example("a", "b:c", "a", "b-c")
@example("a" * 250, "b" * 250, "a" * 250, "b" * 249)
@example("a", "b.x", "a", "b")
def test_two_runs_never_share_a_name(dag: str, run: str, other_dag: str, other_run: str) -> None:
    """However alike the ids are."""
    same = (dag, run) == (other_dag, other_run)
    assert (run_name(dag, run) == run_name(other_dag, other_run)) == same


def test_a_run_is_finished_in_the_folder_where_it_began() -> None:
    """What began under an older version has another name: tasks that are cleared later go on in it."""
    run = SimpleNamespace(dag_id="batch", run_id="manual__1")
    old = SimpleNamespace(task_id="score", xcom_pull=lambda **_: {"run_id": "manual__1"})
    new = SimpleNamespace(task_id="score", xcom_pull=lambda **_: {"run_id": "batch.-manual__1"})
    none = SimpleNamespace(task_id="score", xcom_pull=lambda **_: None)
    nameless = SimpleNamespace(task_id="score", xcom_pull=lambda **_: {"run_id": None})
    seen = [run_folder(run, ti) for ti in (old, new, none, nameless)]
    assert seen == ["manual__1", *["batch.-manual__1"] * 3]


def test_the_first_task_names_the_folder_anew() -> None:
    """Cleared with all that follows it, an old run begins in a folder of its own DAG."""
    run = SimpleNamespace(dag_id="batch", run_id="manual__1")
    first = SimpleNamespace(task_id="preprocess", xcom_pull=lambda **_: {"run_id": "manual__1"})
    assert run_folder(run, first) == "batch.-manual__1"
