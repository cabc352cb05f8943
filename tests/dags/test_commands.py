import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException
from imagebatch_dags.factory import build_dag
from imagebatch_dags.pipeline import Pipeline

CLI = Path(__file__).resolve().parents[2] / "pipeline_image" / ".venv" / "bin" / "imagebatch"
STAGES = ["preprocess", "check_manifest", "score", "check_predictions", "postprocess", "report"]
FOLDER = "batch.-scheduled__2026-01-31T02.3A00.3A00.2B00.3A00"
MAINTENANCE = Path(__file__).resolve().parents[2] / "dags" / "imagebatch_maintenance.py"


def rendered(task: Any, context: Any, **params: Any) -> tuple[list[str], dict[str, str]]:
    """Render a task as Airflow would, and give its command line and its variables."""
    if isinstance(task, MappedOperator):
        task = task.unmap({"shard": 12})
    task.render_template_fields(context(task, **params))
    return task.stage_arguments, dict(task.environment)


def parse(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Feed a command line to the parser of the real `imagebatch`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEBATCH_")}
    return subprocess.run(
        [CLI, "--parse-only", *arguments], env=own | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("task_id", STAGES)
def test_the_pipelines_own_parser_accepts_every_command(
    operator: str, default_dag: Any, context: Any, task_id: str
) -> None:
    """With either operator, what the DAG renders is a valid command line of the image."""
    arguments, environment = rendered(default_dag.task_dict[task_id], context)
    done = parse(arguments, environment)
    assert done.returncode == 0, (operator, arguments, done.stderr)


def test_all_operators_render_the_same_commands(
    monkeypatch: pytest.MonkeyPatch, installation: dict[str, str], context: Any
) -> None:
    """Where a stage runs changes neither its arguments nor its settings."""
    seen = []
    monkeypatch.setenv("IMAGEBATCH_KUBERNETES_RUNS", "imagebatch-runs")
    for kind in ("process", "docker", "kubernetes"):
        monkeypatch.setenv("IMAGEBATCH_OPERATOR", kind)
        dag = build_dag(Pipeline(dag_id="batch", input="/data/x"))
        seen.append([rendered(dag.task_dict[name], context) for name in STAGES])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][2] == (
        [
            "score",
            "--pack-size=128",
            "--in-flight=3",
            "--deadline=2026-01-31T03:00:00+00:00",
            f"--run-id={FOLDER}",
            "--shard=12",
        ],
        {name: value for name, value in installation.items() if name != "IMAGEBATCH_BIN"}
        # What metrics say about the run: its DAG, and when the next one is due.
        | {"IMAGEBATCH_PIPELINE": "batch", "IMAGEBATCH_NEXT_RUN": "2026-02-01T02:00:00+00:00"},
    )


def test_two_dags_of_one_clock_time_work_in_two_folders(
    operator: str, installation: dict[str, str], context: Any
) -> None:
    """A copy of a pipeline's file is another DAG: its nights have the same ids, and folders of their own."""
    assert installation
    seen = []
    for name in ("nightly", "nightly-copy"):
        dag = build_dag(Pipeline(dag_id=name, input="/data/x"))
        commands = [rendered(dag.task_dict[task], context)[0] for task in STAGES]
        folders = {part for command in commands for part in command if part.startswith("--run-id=")}
        assert len(folders) == 1, operator
        seen.append(folders.pop())
    assert seen[0] != seen[1]


def test_a_run_from_before_goes_on_in_its_folder(operator: str, default_dag: Any, context: Any) -> None:
    """Tasks of a run whose first task named another folder are given that one, their label too."""
    task = default_dag.task_dict["postprocess"]
    task.render_template_fields(
        context(task, result={"run_id": "scheduled__2026-01-30", "stage": "preprocess"})
    )
    assert "--run-id=scheduled__2026-01-30" in task.stage_arguments
    assert (
        getattr(task, "labels", {}).get("imagebatch.run", "scheduled__2026-01-30") == "scheduled__2026-01-30"
    ), operator


@pytest.mark.parametrize(
    ("asked", "flag"), [(None, "no-allow-empty"), (False, "no-allow-empty"), (True, "allow-empty")]
)
def test_only_a_night_that_may_be_empty_is_skipped(
    operator: str, default_dag: Any, context: Any, asked: Any, flag: str
) -> None:
    """By default an input without any image is a failure; the pipeline or the trigger may allow it."""
    arguments, _ = rendered(default_dag.task_dict["preprocess"], context, allow_empty=asked)
    assert f"--{flag}" in arguments, operator
    allowing = build_dag(Pipeline(dag_id="batch", input="/x", allow_empty=True)).task_dict["preprocess"]
    assert "--allow-empty" in rendered(allowing, context)[0]


def test_a_conf_that_prune_does_not_know_removes_nothing(
    operator: str, installation: dict[str, str], context: Any, dag_run: Any
) -> None:
    """`keep_day: 3000` is refused; it would have removed all that is older than the default's 30."""
    assert installation
    task = runpy.run_path(str(MAINTENANCE))["prune_dag"].task_dict["prune"]
    run = dag_run("imagebatch_prune", conf={"keep_day": 3000})
    with pytest.raises(AirflowFailException, match="did you mean 'keep_days'"):
        task._pre_execute_hook(context(task, dag_run=run))  # noqa: SLF001 - as Airflow calls it
    assert operator


def test_the_parser_would_notice_a_wrong_command() -> None:
    """The check above can fail: an unknown flag is refused with exit code 2."""
    assert parse(["score", "--run-id=r", "--shards=1"], {}).returncode == 2


@pytest.mark.parametrize(
    "value", ["--help", "a b; rm -rf $HOME", "{{ 7 * 7 }}", "'\"", "x.sh", "-1\n--model=y"]
)
def test_what_a_person_types_is_one_argument(
    operator: str, default_dag: Any, context: Any, value: str
) -> None:
    """No value of the form becomes a flag, a template, a file or a second argument."""
    arguments, environment = rendered(default_dag.task_dict["preprocess"], context, input=value)
    assert f"--input={value}" in arguments, operator
    assert parse(arguments, environment).returncode == 0


def test_a_manifest_takes_the_inputs_place(default_dag: Any, context: Any) -> None:
    """Given both, the manifest is listed and the default input is not."""
    arguments, _ = rendered(default_dag.task_dict["preprocess"], context, manifest="/data/list.csv")
    assert "--manifest=/data/list.csv" in arguments
    assert not [argument for argument in arguments if argument.startswith("--input")]


def test_no_key_is_on_a_command_line(operator: str, default_dag: Any, context: Any) -> None:
    """Keys travel as the path of a file, in a variable."""
    for name in STAGES:
        arguments, environment = rendered(default_dag.task_dict[name], context)
        assert not [argument for argument in arguments if "key" in argument], operator
        assert environment["IMAGEBATCH_KEY_FILE"].endswith("key_file.json")


def test_a_container_is_labelled_with_its_run_task_and_attempt(
    monkeypatch: pytest.MonkeyPatch, installation: dict[str, str], context: Any
) -> None:
    """Whoever finds a container knows whose it is."""
    assert installation
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "docker")
    task = build_dag(Pipeline(dag_id="batch", input="/data/x")).task_dict["preprocess"]
    task.render_template_fields(context(task))
    assert task.labels == {
        "imagebatch.installation": "imagebatch",
        "imagebatch.dag": "batch",
        "imagebatch.dag-run": "scheduled__2026-01-31T02:00:00+00:00",
        "imagebatch.run": FOLDER,
        "imagebatch.task": "preprocess",
        "imagebatch.map-index": "-1",
        "imagebatch.attempt": "2",
    }


@pytest.mark.parametrize("params", [{}, {"keep_days": 0.5, "unfinished": True, "dry_run": True}])
def test_prune_is_a_command_of_the_image_too(
    operator: str, installation: dict[str, str], context: Any, params: dict[str, Any]
) -> None:
    """What the maintenance DAG renders is parsed by the real `imagebatch`, and carries what was asked."""
    assert installation
    task = runpy.run_path(str(MAINTENANCE))["prune_dag"].task_dict["prune"]
    arguments, environment = rendered(task, context, **params)
    assert parse(arguments, environment).returncode == 0, operator
    days, unfinished, dry_run = arguments[1:]
    asked = {"keep_days": 30, "unfinished": False, "dry_run": False} | params
    assert days == f"--keep-days={asked['keep_days']}"
    assert (unfinished, dry_run) == (
        "--unfinished" if asked["unfinished"] else "--no-unfinished",
        "--dry-run" if asked["dry_run"] else "--no-dry-run",
    )


@pytest.mark.parametrize("name", ["trends", "history"])
def test_looking_back_is_a_command_of_the_image(
    operator: str, installation: dict[str, str], context: Any, name: str
) -> None:
    """Both tasks of the morning are parsed by the real `imagebatch`, on the installation's runs."""
    task = runpy.run_path(str(MAINTENANCE))["trends_dag"].task_dict[name]
    arguments, environment = rendered(task, context)
    assert arguments == [name], operator
    assert environment["IMAGEBATCH_RUNS_URI"] == installation["IMAGEBATCH_RUNS_URI"]
    assert parse(arguments, environment).returncode == 0


def test_a_container_gets_no_other_names_than_its_engines_proxy_lets_through(
    monkeypatch: pytest.MonkeyPatch, default_dag: Any, installation: dict[str, str], context: Any
) -> None:
    """Every variable of a stage is spelt as containers/engine-proxy.cfg wants it."""
    assert installation
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "docker")
    for name in STAGES:
        _, environment = rendered(default_dag.task_dict[name], context)
        assert passes(environment)


def passes(environment: dict[str, str]) -> bool:
    """Whether containers/engine-proxy.cfg lets a container with these variables through."""
    texts: dict[str, str] = {}
    for line in (MAINTENANCE.parents[1] / "containers/engine-proxy.cfg").read_text().splitlines():
        if found := re.fullmatch(r" +setenv ([A-Z]+) (.+)", line):
            pieces = re.findall(r"'([^']*)'|\"\$\{([A-Z]+)\}\"", found[2])
            texts[found[1]] = "".join(text or texts[name] for text, name in pieces)
    written = json.dumps([f"{name}={value}" for name, value in environment.items()])
    return re.fullmatch(texts["ENVIRONMENT"], f'"Env": {written}, ') is not None


def test_the_engines_proxy_lets_the_secrets_through_that_the_page_names() -> None:
    """Credentials of stores reach a stage; what would make the stage run other code does not."""
    page = (MAINTENANCE.parents[1] / "docs/how-to/containers.md").read_text("utf-8")
    found = re.search(r"IMAGEBATCH_DOCKER_SECRETS: ([A-Z_,]+)", page)
    assert found
    named = [*found[1].split(","), "IMAGEBATCH_DATABASE_URL", "IMAGEBATCH_API_TOKEN"]
    assert passes({"IMAGEBATCH_RUNS_URI": "/data/runs", **dict.fromkeys(named, 'a"b')})
    for name in ("LD_PRELOAD", "PYTHONPATH", "AWS_CONFIG_FILE", "X_IMAGEBATCH_A"):
        assert not passes({"IMAGEBATCH_RUNS_URI": "/data/runs", name: "x"})
