"""What orchestrators get that read files: fields of the last line, and 0 where there is nothing to do."""

from __future__ import annotations

import json
from pathlib import Path

from imagebatch import cli

from deploy.pipelines.imagebatch_pipelines.stages import PARAMETERS, STAGES, flags
from tests.support.calls import Call


def test_fields_of_the_last_line_are_files(call: Call, images: Path, tmp_path: Path) -> None:
    """Numbers and lists as JSON, texts as they are, the whole line too; folders are made."""
    places = {name: tmp_path / "new" / name for name in ("shards", "shard_list", "account", "line")}
    asked = ",".join(f"{name}={place}" for name, place in places.items())
    done = call("preprocess", "--run-id", "r", "--input", images, "--shard-size", 16, "--result-files", asked)
    assert done.code == 0
    assert places["shards"].read_text() == "3"
    assert json.loads(places["shard_list"].read_text()) == ["0", "1", "2"]
    assert places["account"].read_text() == done.last["account"]
    assert json.loads(places["line"].read_text()) == done.last


def test_a_field_that_a_command_has_not_is_named(call: Call, images: Path, tmp_path: Path) -> None:
    """2, with the fields that there are, and no file; what the command has done stays done."""
    asked = f"shards={tmp_path / 'a'},shard={tmp_path / 'b'}"
    done = call("preprocess", "--run-id", "r", "--input", images, "--result-files", asked)
    assert (done.code, (tmp_path / "a").exists()) == (2, False)
    assert "preprocess is done, but has no shard; it has run_id, stage, listed" in done.err
    assert call("score", "--run-id", "r").code == 0
    assert call("score", "--run-id", "r", "--result-files", "predicted").code == 2


def test_a_file_that_cannot_be_written_is_a_failure_of_storage(
    call: Call, images: Path, tmp_path: Path
) -> None:
    """74: an orchestrator that waits for the file tries again."""
    (tmp_path / "file").write_text("")
    asked = f"shards={tmp_path / 'file' / 'shards'}"
    done = call("preprocess", "--run-id", "r", "--input", images, "--result-files", asked)
    assert done.code == 74
    assert "--result-files: cannot write" in done.err


def test_nothing_to_do_can_end_with_0_and_is_told_by_files_either_way(call: Call, tmp_path: Path) -> None:
    """An empty input has no shard; the code is 99, or 0 for those to whom every other one is a failure."""
    (tmp_path / "empty").mkdir()
    place = tmp_path / "shards"
    line = ["preprocess", "--run-id", "r", "--input", tmp_path / "empty", "--allow-empty"]
    line += ["--result-files", f"shards={place}"]
    done = call(*line)
    assert (done.code, done.out, place.read_text()) == (99, "", "0")
    place.unlink()
    done = call(*line, "--nothing-to-do-code", "0")
    assert (done.code, done.last["shards"], place.read_text()) == (0, 0, "0")
    assert done.last["nothing_to_do"].startswith("no image in ")
    assert call(*line[:-3], "--nothing-to-do-code", "0").code == 65  # it may not be empty


def test_every_command_of_the_table_of_stages_is_understood() -> None:
    """What pipelines of other orchestrators are rendered from has no flag that its command does not take."""
    values = {name: one.default for name, one in PARAMETERS.items()} | {
        "input": "/data/images",
        "runs_uri": "/data/runs",
        "api_url": "http://torchserve:8080",
    }
    for stage in STAGES:
        told = flags(stage, values, "run-1", "0")
        line = [stage.command, *stage.switches, *(str(part) for pair in told for part in pair)]
        name, asked = cli.parse(line)
        assert (name, asked.model_dump()["run_id"]) == (stage.command, "run-1")
