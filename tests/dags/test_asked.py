"""What a trigger may ask for, and what becomes of it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.definitions.param import SerializedParam, SerializedParamsDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from imagebatch_dags.asked import Asked, params_of, refuse_unknown
from imagebatch_dags.factory import build_dag
from imagebatch_dags.options import kind_of, option_of
from imagebatch_dags.pipeline import OPTIONS, SOURCES, Pipeline

PLAIN = Pipeline(dag_id="batch", input="/data/cells")
ASKING = Pipeline(
    dag_id="batch",
    query="select path as uri\n  from photo where day = '{date}'",
    allowed_roots="/data",
    carry="all",
)
FULL = Pipeline(dag_id="batch", manifest="/data/{date}.csv", max_suspect_images="5%", model_version="2.0")
COMMANDS = {"preprocess": [], "score": [], "check_images": ["--suite=images"], "report": []}
# Where not every text is one.
TEXTS = {"backend": "local", "list_encoding": "cp1252", "pages": "all", "review_below": "auto"}
NEAR = [f"{name[:-1]}x" for name in OPTIONS] + ["inptu", "topk", "Input", "allow-empty", "", "x" * 300]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2**33)
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(
        ["5%", "20", "solar-cells", "2026-01-31", "/d/{date}", "/d/{date-1:%Y/%m}", "{{ ds }}", "\0"]
    )
    | st.lists(st.integers(), max_size=2)
)
CONFS = st.dictionaries(st.sampled_from([*OPTIONS, "date"]), VALUES, max_size=4) | st.dictionaries(
    st.sampled_from([*OPTIONS, "date", *NEAR]), VALUES, max_size=3
)


def triggered(pipeline: Pipeline, conf: dict[str, Any]) -> dict[str, Any]:
    """Merge and validate as Airflow's server does at a trigger; ValueError is its answer 400."""
    form = {
        name: SerializedParam(param.value, param.description, **param.schema)
        for name, param in params_of(pipeline).items()
    }
    return SerializedParamsDict(form).deep_merge(json.loads(json.dumps(conf))).validate()


def first_task(pipeline: Pipeline, context: Any, dag_run: Any, conf: dict[str, Any]) -> list[list[str]]:
    """Do what Airflow does of a run's first task, and render what the others would be given."""
    dag = build_dag(pipeline)
    task = dag.task_dict["preprocess"]
    seen = context(task, dag_run=dag_run("batch", conf=conf), **triggered(pipeline, conf))
    task.render_template_fields(seen)
    refuse_unknown(seen)
    commands = [task.stage_arguments]
    for name in ("report", "check_images"):
        if name in dag.task_dict:
            other = dag.task_dict[name]
            other.render_template_fields(seen | {"task": other})
            commands.append(other.stage_arguments)
    score = dag.task_dict["score"].unmap({"shard": 0})
    score.render_template_fields(seen | {"task": score})
    return [*commands, score.stage_arguments]


def attempted(pipeline: Pipeline, context: Any, dag_run: Any, conf: dict[str, Any]) -> list[list[str]] | str:
    """Give the commands of a run with this conf, or the words of its refusal."""
    try:
        return first_task(pipeline, context, dag_run, conf)
    except (AirflowFailException, ValueError) as refusal:
        return str(refusal)


def flags_of(commands: list[list[str]], name: str) -> list[str]:
    """Collect what commands are told of one option."""
    flag = f"--{name.replace('_', '-')}="
    return [part.removeprefix(flag) for command in commands for part in command if part.startswith(flag)]


@pytest.mark.parametrize("pipeline", [PLAIN, FULL, ASKING], ids=["plain", "full", "asking"])
def test_no_conf_does_something_else_than_it_says(
    context: Any, dag_run: Any, parse: Any, pipeline: Pipeline
) -> None:
    """Any conf is refused at the trigger or by the first task, in words, or is a command that is right."""

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(CONFS)
    @example({"inptu": "/data/tonight"})
    @example({"limit": None, "input": None, "max_failures": 20.0, "top_k": 3.0})
    @example({"max_class_share": float("nan")})
    @example({"input": "\ud800"})
    def holds(conf: dict[str, Any]) -> None:
        made = attempted(pipeline, context, dag_run, conf)
        if isinstance(made, str):
            by_first_task = "exit code 78 (wrong configuration)" in made and len(made) < 1200
            assert by_first_task or made.startswith("Invalid input for param")
            return
        assert set(conf) <= set(params_of(pipeline))
        for command in made:
            assert parse(command) == (0, ""), command
        for name in set(conf) - {"input", "manifest", "date", "allow_empty"}:
            value = conf[name]
            if value not in (None, ""):
                told = flags_of(made, name)
                assert told, (name, made)
                assert isinstance(value, str) or {float(one) for one in told} == {value}

    holds()


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"inptu": "/data/tonight"}, "unknown key 'inptu': did you mean 'input'?"),
        ({"topk": 2}, "did you mean 'top_k'?"),
        ({"Max-Failures": "0"}, "did you mean 'max_failures'?"),
        ({"qqqq": 1}, "this DAG takes input, manifest, uri_column"),
        ({"allowed_roots": "/"}, "only the pipeline's file sets it"),
        ({"x" * 500: 1}, "unknown key 'xxxx"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(
    operator: str, context: Any, dag_run: Any, conf: dict[str, Any], said: str
) -> None:
    """A run with a typing error does not score the default input: it fails before anything is claimed."""
    task = build_dag(PLAIN).task_dict["preprocess"]
    with pytest.raises(AirflowFailException, match="exit code 78") as raised:
        task._pre_execute_hook(context(task, dag_run=dag_run("batch", conf=conf)))  # noqa: SLF001 - as Airflow calls it
    assert said in str(raised.value), operator


@pytest.mark.parametrize("conf", [{}, None, {"limit": 3}, {"airflow/task_span_detail_level": 2}])
def test_what_is_known_passes(default_dag: Any, context: Any, dag_run: Any, conf: Any) -> None:
    """Params, nothing at all, and what Airflow itself reads in a conf."""
    task = default_dag.task_dict["preprocess"]
    refuse_unknown(context(task, dag_run=dag_run("batch", conf=conf)))


def test_null_stands_for_the_default(context: Any, dag_run: Any) -> None:
    """Of every field: no value becomes the word None."""
    nothing = dict.fromkeys(params_of(PLAIN))
    asked, unasked = (first_task(PLAIN, context, dag_run, conf) for conf in (nothing, {}))
    assert asked == unasked
    assert "--input=/data/cells" in asked[0]
    assert not [part for command in asked for part in command if "None" in part]


@pytest.mark.parametrize(
    ("pipeline", "conf", "flag"),
    [
        (PLAIN, {}, "--input=/data/cells"),
        (PLAIN, {"manifest": "/data/list.csv"}, "--manifest=/data/list.csv"),
        (PLAIN, {"manifest": "/data/list.csv", "input": "/data/cells"}, "--manifest=/data/list.csv"),
        (FULL, {"input": "/data/other"}, "--input=/data/other"),
        (FULL, {"input": "/data/other", "manifest": "/data/{date}.csv"}, "--input=/data/other"),
        (FULL, {}, "--manifest=/data/2026-01-31.csv"),
        (FULL, {"date": "2025-12-24"}, "--manifest=/data/2025-12-24.csv"),
        (ASKING, {}, "--query=select path as uri\n  from photo where day = '2026-01-31'"),
        (ASKING, {"date": "2025-12-24"}, "--query=select path as uri\n  from photo where day = '2025-12-24'"),
        (ASKING, {"input": "/data/other"}, "--input=/data/other"),
        (ASKING, {"manifest": "/data/list.csv"}, "--manifest=/data/list.csv"),
        (PLAIN, {"input": "/d/{date-1:%Y/%m/%d}/x"}, "--input=/d/2026/01/30/x"),
        (PLAIN, {"input": "/d/{{ ds }}/{{ds_nodash}}"}, "--input=/d/2026-01-31/20260131"),
        (PLAIN, {"input": "/d/{{ 7 * 7 }}"}, "--input=/d/{{ 7 * 7 }}"),
    ],
)
def test_what_the_trigger_changes_is_what_is_scored(
    pipeline: Pipeline, conf: dict[str, Any], flag: str, dag_run: Any
) -> None:
    """The form sends its defaults, too: the other of input and manifest wins over one that was left alone."""
    assert Asked(pipeline).source(triggered(pipeline, conf), dag_run("batch")) == flag


@pytest.mark.parametrize(
    ("pipeline", "conf", "said"),
    [
        (PLAIN, {"input": "/a", "manifest": "/b"}, "not both"),
        (PLAIN, {"input": ""}, "both are empty"),
        (FULL, {}, "wants a date, and this run has none: give `date`"),
        (PLAIN, {"date": "2026-01-31"}, "date is given, but input '/data/cells' names none"),
        (FULL, {"date": "2026-02-30"}, "a day such as 2026-01-31"),
        (FULL, {"manifest": "/d/{date-9999}", "date": "0001-01-01"}, "outside the calendar"),
        (PLAIN, {"input": "a\0b"}, "a character that no file's name can hold"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    pipeline: Pipeline, conf: dict[str, Any], said: str, dag_run: Any
) -> None:
    """With words, and without a retry; a run by hand that has no day is not given today's."""
    by_hand = dag_run("batch", run_type="manual", logical_date=None)
    params = {name: param.value for name, param in params_of(pipeline).items()} | conf
    with pytest.raises(AirflowFailException, match="exit code 78") as raised:
        Asked(pipeline).source(params, by_hand)
    assert said in str(raised.value)


def test_a_backfill_scores_the_folder_of_each_of_its_days(dag_run: Any) -> None:
    """The logical date names the folder, whenever the run is made."""
    asked = Asked(Pipeline(dag_id="batch", input="s3://cells/{date:%Y/%m/%d}"))
    days = [datetime(2025, 12, 31, 2, tzinfo=UTC), datetime(2026, 1, 1, 2, tzinfo=UTC)]
    runs = [dag_run("batch", run_type="backfill", logical_date=day) for day in days]
    assert [asked.source({}, run) for run in runs] == [
        "--input=s3://cells/2025/12/31",
        "--input=s3://cells/2026/01/01",
    ]


@pytest.mark.parametrize("name", [each.name for each in OPTIONS.values() if option_of(each).commands])
def test_what_a_pipeline_allows_the_command_takes(parse: Any, name: str) -> None:
    """Both bounds of every option, or a text, pass the parser of the real `imagebatch`."""
    allows = option_of(OPTIONS[name])
    switch = kind_of(OPTIONS[name]) is bool
    texts = ["5%"] if "a share" in allows.shape else [TEXTS.get(name, "x.y-z")]
    numbers = [value for value in (allows.least, allows.most) if value is not None]
    values = numbers if kind_of(OPTIONS[name]) in {int, float} else texts
    for command in allows.commands:
        verb, more = command.partition("_")[0], COMMANDS[command]
        first = verb == "preprocess" and name not in SOURCES
        more = [*more, "--allowed-roots=/data"] if name == "query" else more
        source = ["--manifest=x" if allows.of_lists else "--input=x"] if first else []
        flag = f"--{name.replace('_', '-')}"
        for value in values:
            argv = [verb, "--run-id=r", *more, *source, flag if switch else f"{flag}={value}"]
            assert parse(argv) == (0, ""), argv


def test_what_is_about_a_list_goes_with_a_list(context: Any, dag_run: Any) -> None:
    """Columns of a manifest are no flags of an input that takes its place; asked for, they are refused."""
    listed = Pipeline(dag_id="batch", manifest="/data/list.csv", uri_column="file", carry="site")
    assert flags_of(first_task(listed, context, dag_run, {}), "uri_column") == ["file"]
    assert flags_of(first_task(listed, context, dag_run, {"input": "/data/x"}), "uri_column") == []
    assert flags_of(first_task(ASKING, context, dag_run, {}), "carry") == ["all"]
    with pytest.raises(AirflowFailException, match="'query': only the pipeline's file sets it"):
        first_task(PLAIN, context, dag_run, {"query": "select 1"})
    with pytest.raises(AirflowFailException, match="carry is about a manifest"):
        first_task(PLAIN, context, dag_run, {"carry": "all"})


def test_every_limit_of_a_gate_is_in_the_form() -> None:
    """What may stop a run can be set for one run, and for a pipeline."""
    limits = {name for name in OPTIONS if name.startswith("max_")}
    assert limits == {
        "max_failures",
        "max_class_share",
        "max_consecutive_failures",
        "max_suspect_images",
        "max_image_bytes",
        "max_image_pixels",
        "max_pages",
    }
    assert limits | {"allow_empty", "date"} <= params_of(FULL).keys()


def test_suspect_images_stop_a_run_only_where_a_pipeline_says_so(default_dag: Any, context: Any) -> None:
    """Then a task looks at a sample beside scoring, and nothing is written before it has ended."""
    assert "check_images" not in default_dag.task_dict
    dag = build_dag(FULL)
    task = dag.task_dict["check_images"]
    assert (task.upstream_task_ids, task.downstream_task_ids) == ({"check_manifest"}, {"check_predictions"})
    task.render_template_fields(context(task))
    assert task.stage_arguments[:3] == ["check", "--suite=images", "--max-suspect-images=5%"]
