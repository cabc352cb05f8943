from pathlib import Path

import pytest
from imagebatch_dags.pipeline import Pipeline, read_pipeline


def write(folder: Path, text: str) -> Path:
    """Write a pipeline's file."""
    path = folder / "cells.yaml"
    path.write_text(text)
    return path


def test_a_file_becomes_a_pipeline_named_after_it(tmp_path: Path) -> None:
    """Keys are taken, variables are filled in, the rest keeps its default."""
    path = write(tmp_path, "input: ${HERE}/x\nshard_size: 64\nwarn_after_minutes: 5\ntags: [a]\n")
    assert read_pipeline(path, {"HERE": "/data"}) == Pipeline(
        dag_id="cells", input="/data/x", shard_size=64, warn_after_minutes=5, tags=["a"]
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("input: x\nshardsize: 3", "unknown key 'shardsize'"),
        ("input: x\nshard_size: many", "shard_size must be int"),
        ("input: x\nshard_size: true", "shard_size must be int"),
        ("input: x\nmax_failures: 5", "max_failures must be str"),
        ("input: ${NOWHERE}/x", "NOWHERE is not set"),
        ("- a", "must be a mapping"),
        ("input: [", "expected"),
        ("input: x\nmanifest: y", "one of input and manifest"),
        ("schedule: ''", "one of input and manifest"),
        ("input: x\nwarn_after_minutes: 90", "below late_after_minutes"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path: Path, text: str, complaint: str) -> None:
    """Whoever writes YAML is told which file and which key."""
    with pytest.raises(ValueError, match=complaint) as raised:
        read_pipeline(write(tmp_path, text), {})
    assert "cells.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)
