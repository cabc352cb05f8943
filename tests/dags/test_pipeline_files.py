"""Pipelines as YAML files: what a mistake costs, and what is said of it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from imagebatch_dags.factory import build_dag
from imagebatch_dags.options import option_of
from imagebatch_dags.pipeline import MODEL, OPTIONS, PRESETS, TAKEN, Pipeline
from imagebatch_dags.pipeline_files import LARGEST, read_pipeline, read_pipelines
from imagebatch_dags.pipeline_table import table

Write = Callable[[str, str], Path]
DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a pipeline's file into a folder of its own."""

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_a_file_becomes_a_pipeline_named_after_it(write: Write) -> None:
    """Keys are taken, variables are filled in, the rest keeps its default."""
    path = write("cells.yaml", "input: ${HERE}/x\nshard_size: 64\nwarn_after_minutes: 5\ntags: [a]\n")
    assert read_pipeline(path, {"HERE": "/data"}) == Pipeline(
        dag_id="cells", input="/data/x", shard_size=64, warn_after_minutes=5, tags=["a"]
    )


def test_the_keys_that_people_look_for_are_there(write: Write) -> None:
    """What a pipeline can differ in is a key of its file, each with a value that is taken."""
    text = """
manifest: s3://cells/{date}.csv
uri_column: file
id_column: number
carry: line,site
list_encoding: cp1252
class_index: true
model_card: /data/card.json
request_template: /data/request.json
include: "*.tif"
allowed_roots: s3://cells,s3://more
cache: /data/cache
baseline: /data/{model}.baseline.parquet
backend: local
model_archive: /data/{model}.mar
local_workers: 2
embeddings: 0
image_sample: 100
max_class_share: 1
max_failures: 20
max_suspect_images: 2%
max_consecutive_failures: 50
max_image_bytes: 1000000
max_image_pixels: 5000000
pages: all
max_pages: 50
allow_empty: true
drift_alpha: 0.05
golden: /data/{model}.golden.json
pack_size: 16
in_flight: 2
limit: 10
owner: quality
retries: 0
schedule: ""
"""
    pipeline = read_pipeline(write("cells.yaml", text), {})
    assert (pipeline.max_failures, pipeline.max_class_share, pipeline.retries) == ("20", 1, 0)
    assert pipeline.dated


def test_a_query_may_have_lines(write: Write) -> None:
    """SQL stays as it is written: what follows a comment is a line of its own."""
    text = """
allowed_roots: /data
carry: site
query: |
  select path as uri, site -- of tonight
  from photo
  where day = '{date}'
"""
    pipeline = read_pipeline(write("cells.yaml", text), {})
    assert pipeline.query.splitlines()[1] == "from photo"
    assert pipeline.dated


@pytest.mark.parametrize(
    ("text", "key", "complaint"),
    [
        ("input: x\nshardsize: 3", "shardsize", "did you mean 'shard_size'?"),
        ("input: x\nMax-Failures: 3", "Max-Failures", "did you mean 'max_failures'?"),
        ("input: x\nqqq: 3", "qqq", "the keys are dag_id, description, input"),
        ("input: x\n1: 3", "1", "unknown key"),
        ("input: x\npages: 3", "pages", "in quotes"),
        ("input: x\npages: every", "pages", "model or all"),
        ("input: x\nshard_size: many", "shard_size", "a whole number from 1 to 100,000, not 'many'"),
        ("input: x\nshard_size: true", "shard_size", "not true"),
        ("input: x\nshard_size: 0", "shard_size", "from 1 to 100,000, not 0"),
        ("input: x\nshard_size: 1.5", "shard_size", "a whole number"),
        ("input: x\nshard_size: [1]", "shard_size", "not a list"),
        ("input: x\nshard_size: 1\nshard_size: 2", "shard_size", "is there twice"),
        ("input: x\nmax_failures: 2 percent", "max_failures", "a count such as 20, or a share such as 5%"),
        ("input: x\nmax_failures: 0.05", "max_failures", 'put it in quotes, "0.05"'),
        ("input: x\nmax_failures: 101%", "max_failures", "such as 5%"),
        ("input: x\nmax_class_share: 0", "max_class_share", "above 0 and at most 1"),
        ("input: x\nmax_class_share: .nan", "max_class_share", "above 0 and at most 1"),
        ("input: x\nlate_after_minutes: .inf", "late_after_minutes", "not inf"),
        ("input: x\nmodel: solar cells", "model", "'solar cells' must be letters, digits"),
        ("input: x\nmodel: no", "model", "must be text, not false: put it in quotes"),
        ("input: x\nmodel_version: 1.10", "model_version", "must be text, not 1.1: put it in quotes"),
        ("input: x\nmodel:", "model", "has no value"),
        ("input: x\nbackend: my server", "backend", "a name such as torchserve or local"),
        ("input: x\nallow_empty: maybe", "allow_empty", "true or false"),
        ("input: ${NOWHERE}/x", "input", "NOWHERE is not set"),
        ("input: $5/x", "input", "write $$"),
        ("input: s3://b/{{ yesterday }}", "input", "{{ yesterday }} is no date that is known; use {date}"),
        ("input: s3://b/{date:%Q}", "input", "{date:%Q} is no date"),
        ("input: s3://b/{ds}", "input", "{ds} is no date"),
        ("input: {date}/x", "input: {date}/x", "stands in quotes"),
        ("input: {date}", "input", "must be text, not a mapping"),
        ("input: [", "input: [", "line 1"),
        ("input: x\n\tmodel: y", "model: y", "line 2"),
        ("input: x\nmanifest: y", "input", "give one of input and manifest"),
        (
            "input: x\nquery: select 1\nallowed_roots: /d",
            "input",
            "give one of input and manifest (or query)",
        ),
        ("query: select 1", "query", "give allowed_roots, too"),
        ('allowed_roots: /d\nquery: "select \\b1"', "query", "a control character"),
        ("allowed_roots: /d\nquery: select '{ds}'", "query", "{ds} is no date"),
        ("schedule: ''", "input", "give one of input and manifest"),
        ("input: x\nschedule: 0 2 * *", "schedule", "has 4 fields"),
        ("input: x\nschedule: 0 2 * * * *", "schedule", "has 6 fields"),
        ("input: x\nschedule: 0 25 * * *", "schedule", "is no time"),
        ("input: x\nschedule: 0 0 31 2 *", "schedule", "is no time"),
        ("input: x\nschedule: every night", "schedule", "has 2 fields"),
        ("input: x\nschedule: '@once'", "schedule", "five fields"),
        ("input: x\nwarn_after_minutes: 90", "warn_after_minutes", "below late_after_minutes"),
        ("input: x\ntags: nightly", "tags", "a list such as [a, b]"),
        ("input: x\ntags: [1]", "tags", "must be text"),
        ("input: x\ndag_id: a b", "dag_id", "at most 100 letters"),
        ("input: x\ndag_id: a..b", "dag_id", "letters"),
        ("input: x\ndag_id: cells.trial", "dag_id", "may not end in .trial"),
        ('input: "a\\nb"', "input", "a control character"),
        ("- a", "key: value", "not a list"),
        ("", "key: value", "not nothing"),
        ("a: &a [*a]", "unknown key 'a'", "the keys are"),
        ("[" * 5000, "cells.yaml", "too deep"),
        ("input: x\n---\ninput: y", "input: x", "another document"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(
    write: Write, text: str, key: str, complaint: str
) -> None:
    """Whoever writes YAML is told which file, which key, and what would be right."""
    with pytest.raises(ValueError, match=r"cells\.yaml: ") as raised:
        read_pipeline(write("cells.yaml", text), {})
    said = str(raised.value)
    assert key in said
    assert complaint in said
    assert "\n" not in said
    assert len(said) < 1200


def test_what_is_no_file_of_a_pipeline_is_told_and_never_waited_for(tmp_path: Path) -> None:
    """A folder, a dangling link, a pipe, something large, bytes that are no text."""
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "large.yaml").write_bytes(b"# " + b"x" * LARGEST)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "README.md").write_text("not looked at")
    (tmp_path / ".weekly.yaml.swp").write_text("nor this")
    (tmp_path / "._weekly.yaml").write_bytes(b"\0\5\26\7")
    found = read_pipelines(tmp_path, {})
    assert found.pipelines == []
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in found.mistakes] == [
        "binary.yaml",
        "folder.yaml",
        "gone.yaml",
        "large.yaml",
        "pipe.yml",
    ]


def test_the_name_of_a_file_may_be_at_fault(write: Write) -> None:
    """It is the DAG's, unless the file says otherwise."""
    with pytest.raises(ValueError, match="rename the file, or give a dag_id"):
        read_pipeline(write("weekly copy.yaml", "input: x"), {})
    assert read_pipeline(write("weekly copy.yaml", "input: x\ndag_id: weekly2"), {}).dag_id == "weekly2"


def test_one_bad_file_costs_no_other_its_pipeline(tmp_path: Path, write: Write) -> None:
    """Both endings are read, and each mistake has its own line."""
    write("a.yaml", "input: x")
    write("b.yml", "input: x")
    write("c.yaml", "inptu: x")
    write("d.yaml", "input: x\nshard_size: 0")
    found = read_pipelines(tmp_path, {})
    assert [one.dag_id for one in found.pipelines] == ["a", "b"]
    assert [line.partition("/c.yaml: ")[2] or line.partition("/d.yaml: ")[2] for line in found.mistakes] == [
        "unknown key 'inptu': did you mean 'input'?",
        "shard_size: must be a whole number from 1 to 100,000, not 0",
    ]


def test_a_copy_that_keeps_its_dag_id_does_not_take_the_dag(tmp_path: Path, write: Write) -> None:
    """The file that is named after the DAG stands; where none is, nobody can tell which is meant."""
    write("a-copy.yaml", "input: copy\ndag_id: weekly")
    write("weekly.yaml", "input: original")
    write("p.yaml", "input: x\ndag_id: same")
    write("q.yml", "input: y\ndag_id: same")
    found = read_pipelines(tmp_path, {})
    assert [(one.dag_id, one.input) for one in found.pipelines] == [("weekly", "original")]
    assert [line.partition(f"{tmp_path}/")[2].partition(";")[0] for line in found.mistakes] == [
        "a-copy.yaml: dag_id: weekly is also that of weekly.yaml",
        "p.yaml: dag_id: same is also that of q.yml",
        "q.yml: dag_id: same is also that of p.yaml",
    ]


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_no_file_takes_a_dag_of_this_folder(tmp_path: Path, write: Write, name: str) -> None:
    """Airflow would show now the one, now the other."""
    write(f"{name}.yaml", "input: x")
    found = read_pipelines(tmp_path, {})
    assert found.pipelines == []
    assert "is a DAG of this folder already" in found.mistakes[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_schedules(preset: str) -> None:
    """Airflow's words for common times are taken, as cron expressions are."""
    assert Pipeline(dag_id="a", input="x", schedule=preset).schedule == preset


def test_the_page_has_every_key_as_it_is() -> None:
    """What docs/how-to/pipelines.md says of the keys is what the code says: `make docs` writes it."""
    page = (DAGS.parent / "docs" / "how-to" / "pipelines.md").read_text("utf-8")
    assert table() in page


def test_every_option_says_what_it_is() -> None:
    """Docs and the form are made of it."""
    assert all(option_of(each).says.endswith(".") for each in OPTIONS.values())
    assert option_of(OPTIONS["model"]).pattern == MODEL


SWITCH = (True, False)


def kept(name: str, *right: object) -> st.SearchStrategy[tuple[str, object, bool]]:
    """Draw a right value of a key."""
    return st.tuples(st.just(name), st.sampled_from(right), st.just(True))  # noqa: FBT003 - a value to draw


def spoilt(name: str, *wrong: object) -> st.SearchStrategy[tuple[str, object, bool]]:
    """Draw a wrong value of a key."""
    nested = st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=20)
    drawn = st.sampled_from(wrong) | st.dictionaries(st.text(max_size=3), st.none())
    drawn |= st.lists(nested, max_size=3)
    return st.tuples(st.just(name), drawn, st.just(False))  # noqa: FBT003 - a value to draw


LINES = st.one_of(
    kept("shard_size", 1, 64, 100_000),
    kept("max_failures", "5%", "0", "99.5%", 20),
    kept("max_class_share", 0.5, 1, 1.0),
    kept("model", "solar-cells", "a", "m" * 128),
    kept("model_version", "", "1.10", "v" * 64),
    kept("schedule", "", "0 2 * * *", "@daily", "*/5 1-3 * * mon"),
    kept("description", "", "Überprüfung: 50 % der Zellen", "a: b # c"),
    kept("include", "*.tif", "*.jpg,*.jpeg"),
    kept("allow_empty", *SWITCH),
    kept("retries", 0, 100),
    kept("tags", [], ["a", "b"]),
    kept("warn_after_minutes", 0.5, 1),
    spoilt("shard_size", 0, -1, 1.5, SWITCH[0], "many", None, 10**30),
    spoilt("max_failures", "", "2 percent", "101%", "-1", 0.05, None, SWITCH[0], -5),
    spoilt("max_class_share", 0, 1.01, "0.5", SWITCH[0], None, float("nan"), float("inf")),
    spoilt("model", "", "solar cells", "../x", "m" * 129, 5, None, SWITCH[1]),
    spoilt("model_version", 1.1, "a b", "v" * 65, None),
    spoilt("schedule", "0 2 * *", "0 25 * * *", "always", "@once", 5, None, "0 0 31 2 *", "* * * * L9999"),
    spoilt("description", "a\0b", "d" * 1001, 3, None),
    spoilt("include", 5, None, "x" * 5000),
    spoilt("allow_empty", 1, "yes", None),
    spoilt("retries", -1, 101, "3", 2.0, None),
    spoilt("warn_after_minutes", 0, -1, 60, 61, float("nan"), "5", None),
    spoilt("shardsize", 3, None, "x"),
    spoilt("Retries", 3),
    spoilt("dag_id", "a b", "", "x" * 101, 5, None, "a/b"),
)


@given(st.lists(LINES, max_size=5, unique_by=lambda line: line[0]), st.sampled_from(["block", "flow"]))
def test_a_file_is_the_pipeline_that_it_says_or_is_refused_by_its_key(
    lines: list[tuple[str, object, bool]], style: str
) -> None:
    """Whatever is drawn for the keys, in either style of YAML: right values arrive, a wrong one is named."""
    content = {"input": "/data/x"} | {name: value for name, value, _ in lines}
    wrong = [name for name, _, right in lines if not right]
    with TemporaryDirectory() as folder:
        path = Path(folder, "cells.yaml")
        path.write_text(
            yaml.safe_dump(content, allow_unicode=True, default_flow_style=style == "flow", sort_keys=False),
            "utf-8",
        )
        found = read_pipelines(Path(folder), {})
    if not wrong:
        assert found.mistakes == []
        (pipeline,) = found.pipelines
        for name, value, _ in lines:
            assert getattr(pipeline, name) == (str(value) if name == "max_failures" else value)
        build_dag(pipeline).params.validate()
        return
    assert found.pipelines == []
    (said,) = found.mistakes
    assert said.startswith(f"pipeline {path}: ")
    assert any(name in said for name in wrong), said
    assert said.isprintable()
    assert len(said) < 1500


@given(st.binary(max_size=200) | st.text("input: x\n{}[]&*!|>%@`\"'#-?,\t$", max_size=80).map(str.encode))
@example(b"a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\ntags: [*b,*b,*b,*b,*b,*b,*b,*b]")
@example(b"!!python/object/apply:os.system [id]")
def test_any_bytes_are_a_pipeline_or_one_line(data: bytes) -> None:
    """No file takes the others away, whatever is in it."""
    with TemporaryDirectory() as folder:
        Path(folder, "cells.yaml").write_bytes(data)
        Path(folder, "other.yaml").write_text("input: x")
        found = read_pipelines(Path(folder), {})
    assert "other" in [one.dag_id for one in found.pipelines]
    assert len(found.pipelines) + len(found.mistakes) == 2
    assert all(line.isprintable() and "cells.yaml: " in line for line in found.mistakes)


BAG = """
import sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
print("DAGS", *sorted(bag.dags))
for path, said in bag.import_errors.items():
    print("ERROR", path.rsplit("/", 1)[1], said.rstrip().splitlines()[-1])
"""


def test_airflow_shows_one_import_error_and_keeps_all_other_dags(tmp_path: Path) -> None:
    """The error names file and key, and belongs to a file that has no DAGs: Airflow takes those of a file
    with an error away, also while they run."""
    folder = tmp_path / "dags"
    shutil.copytree(DAGS, folder)
    (folder / "pipelines" / "third.yml").write_text("input: x\n")
    (folder / "pipelines" / "broken.yaml").write_text("input: x\nshard_size: 0\n")
    done = subprocess.run(
        [sys.executable, "-c", BAG, str(folder)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("DAGS", "ERROR"))]
    where = f"pipelines_with_mistakes.py pipeline {folder}/pipelines/broken.yaml"
    assert told == [
        "DAGS batch_image_inference imagebatch_prune imagebatch_trends solar_cells_weekly third",
        f"ERROR {where}: shard_size: must be a whole number from 1 to 100,000, not 0",
    ]
