"""Pruning: what is old goes, what counts stays, and nothing outside the runs is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from imagebatch.commands.prune import Pruned, prune
from imagebatch.errors import RunHeldError
from imagebatch.runs.at_work import at_work
from imagebatch.runs.folder import open_run
from imagebatch.runs.retention import FsspecRunsRoot, StoredRun, open_runs
from imagebatch.settings import PruneSettings

from tests.support.calls import Call, scored
from tests.support.model_server import Images, ModelServer

DAY = 86_400
Make = Callable[..., Path]


@pytest.fixture
def make(runs: Path) -> Make:
    """Lay out a run of a given age."""

    def lay(name: str, days: float, *, finished: bool = True, cells: str = "/data/cells") -> Path:
        folder = runs / name
        files = {
            "run.json": json.dumps({"input": cells, "manifest": "", "model": {"name": "solar-cells"}}),
            "scores/shard-00000/part-00000-attempt-00001.parquet": "x" * 1000,
            "output/predictions.csv": "image_id\r\n",
        }
        for path, text in (files | ({"_SUCCESS": "0"} if finished else {})).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        age(folder, days)
        return folder

    return lay


def age(folder: Path, days: float) -> None:
    """Set the time of every file."""
    then = time.time() - days * DAY
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then), follow_symlinks=False)


def left(runs: Path) -> list[str]:
    """List what is there, hidden or not."""
    return sorted(path.name for path in runs.iterdir())


def size(folder: Path) -> int:
    """Bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_old_runs_go_and_the_bytes_are_told(call: Call, runs: Path, make: Make) -> None:
    """Finished runs beyond the days are removed, younger ones stay, and the sum is theirs."""
    old = size(make("old", 40)) + size(make("older", 50))
    make("young", 20)
    outcome = call("prune", "--keep-days", "30")
    assert outcome.code == 0
    assert outcome.last == {
        "stage": "prune",
        "removed": 2,
        "kept": 1,
        "unfinished": 0,
        "temporary": 0,
        "bytes": old,
        "dry_run": False,
    }
    assert left(runs) == ["young"]


def test_a_dry_run_says_the_same_and_removes_nothing(call: Call, runs: Path, make: Make) -> None:
    """What a person sees first is what would then happen."""
    make("old", 40)
    make("young", 1)
    said = call("prune", "--keep-days", "30", "--dry-run").last
    assert left(runs) == ["old", "young"]
    done = call("prune", "--keep-days", "30").last
    assert said == done | {"dry_run": True}
    assert left(runs) == ["young"]


def test_the_newest_success_of_each_input_stays(call: Call, runs: Path, make: Make) -> None:
    """However old: a weekly table is not lost to a nightly one's short memory."""
    make("cells-1", 90)
    make("cells-2", 80)
    make("roofs-1", 200, cells="/data/roofs")
    make("failed", 10, finished=False)
    assert call("prune", "--keep-days", "30").last["removed"] == 1
    assert left(runs) == ["cells-2", "failed", "roofs-1"]


def test_of_a_folder_a_day_the_newest_success_stays(call: Call, runs: Path, make: Make) -> None:
    """Folders that differ in their date alone are one input; a number that is no date is another."""
    for number, folder in enumerate(("2026-01-31", "2026/02/01", "20260202"), 1):
        make(f"night-{number}", 50 - number, cells=f"s3://cells/site-1/{folder}")
    make("other-1", 50, cells="s3://cells/site-2/2026-01-01")
    make("other-2", 50, cells="s3://cells/site-20261399")
    assert call("prune", "--keep-days", "30").last["removed"] == 2
    assert left(runs) == ["night-3", "other-1", "other-2"]


def test_an_unfinished_run_stays_until_it_is_asked_for(call: Call, runs: Path, make: Make) -> None:
    """It may be continued; who knows that it will not be says --unfinished."""
    make("stopped", 90, finished=False)
    make("done", 1)
    said = call("prune", "--keep-days", "30").last
    assert (said["removed"], said["unfinished"]) == (0, 1)
    assert call("prune", "--keep-days", "30", "--unfinished").last["removed"] == 1
    assert left(runs) == ["done"]


def test_a_run_at_work_stays_even_at_no_days(call: Call, runs: Path, make: Make) -> None:
    """A redrive writes into an old run: its newest file counts, and an hour is kept whatever is asked."""
    age(make("redriven", 90) / "run.json", 0)
    make("newest", 1)
    make("old", 2)
    assert call("prune", "--keep-days", "0").last["removed"] == 1
    assert left(runs) == ["newest", "redriven"]


def test_a_run_that_is_being_redriven_stays(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """However old its files are: while the model is asked about its images, it is at work."""
    broken = images / "001.jpg"
    good = broken.read_bytes()
    broken.write_bytes(b"no image")
    for run_id in ("old", "newest"):
        assert scored(call, run_id, images).code == 0
    age(runs / "old", 40)
    broken.write_bytes(good)
    pruned: list[Pruned] = []

    def prune_now(_number: int, _images: Images) -> None:
        pruned.append(prune(PruneSettings(runs_uri=str(runs), keep_days=0)))

    server.faults = prune_now
    assert call("redrive", "--run-id", "old").last["predicted"] == 40
    assert [done.removed for done in pruned] == [0]
    assert call("verify", "--run-id", "old").code == 0
    assert not list(runs.glob("old/redrives/at-work-*"))
    age(runs / "old", 40)
    assert call("prune", "--keep-days", "0").last["removed"] == 1


def test_a_run_that_is_taken_up_while_prune_looks_at_others_stays(
    runs: Path, make: Make, bucket: FsspecRunsRoot
) -> None:
    """Between its measuring and its removal somebody began to work on it: it stays, whole."""
    make("old", 40)
    for root, name in ((open_runs(str(runs)), "old"), (bucket, "one")):
        (measured,) = [run for run in root.runs() if run.name == name]
        newest, measured.modified = measured.modified, measured.modified - DAY
        run = open_run(root.uri, name)
        before = run.list("")
        with at_work(run), pytest.raises(RunHeldError, match="was written to just now"):
            root.remove(measured)
        assert run.list("") == before
        measured.modified = newest
        root.remove(measured)
        with pytest.raises(RunHeldError, match="is being removed"), at_work(run):
            pytest.fail("it is gone")


def test_leftovers_of_killed_processes_go_after_a_day(call: Call, make: Make) -> None:
    """Temporary files of runs that stay: the old one is removed, one that may be being written is not."""
    run = make("run", 3)
    for name, days in ((".part.parquet.aa.tmp", 2), (".part.parquet.bb.tmp", 0.5)):
        path = run / "scores" / "shard-00000" / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - days * DAY,) * 2)
    said = call("prune", "--keep-days", "30").last
    assert (said["removed"], said["temporary"], said["bytes"]) == (0, 1, 4)
    assert sorted(path.name for path in run.rglob(".*")) == [".part.parquet.bb.tmp"]


def test_nothing_that_is_no_run_is_touched(call: Call, runs: Path, make: Make, tmp_path: Path) -> None:
    """Links, what they point to, folders without run.json, strange names and plain files stay."""
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "run.json").write_text("{}")
    (outside / "deep" / "precious").write_text("x")
    age(outside, 400)
    run = make("old", 100)
    (run / "link").symlink_to(outside / "deep", target_is_directory=True)
    (run / "file-link").symlink_to(outside / "deep" / "precious")
    age(run, 100)
    make("newest", 1)
    (runs / "linked").symlink_to(outside, target_is_directory=True)
    (runs / "somebody-elses").mkdir()
    (runs / "somebody-elses" / "data").write_text("x")
    for name in (" spaced", "-dash", "new\nline", "…", ".pruned-short"):
        (runs / name).mkdir()
        (runs / name / "run.json").write_text("{}")
    (runs / "note.txt").write_text("x")
    age(runs, 100)
    age(runs / "newest", 1)
    before = left(runs)
    assert call("prune", "--keep-days", "30").last["removed"] == 1
    assert left(runs) == [name for name in before if name != "old"]
    assert (outside / "deep" / "precious").read_text() == "x"


def test_a_killed_prune_is_finished_by_the_next(runs: Path, make: Make, call: Call) -> None:
    """Killed while it removes, it leaves no run that looks whole; the next call takes away the rest."""
    run = make("big", 40)
    for number in range(20_000):
        (run / "scores" / f"{number}").touch()
    age(run, 40)
    make("newest", 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "imagebatch", "prune", "--keep-days", "30", "--runs-uri", str(runs)]
    )
    deadline = time.monotonic() + 30
    while (runs / "big").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    half = [name for name in left(runs) if name != "newest"]
    assert len(half) == 1
    assert half[0].startswith(".pruned-big-")
    assert call("prune", "--keep-days", "30").last["removed"] == 1
    assert left(runs) == ["newest"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "--keep-days is required"),
        (["--keep-days", "-1"], 2, "--keep-days -1"),
        (["--keep-days", "nan"], 2, "--keep-days nan"),
        (["--keep-days", "1", "--runs-uri", "/nowhere/at/all"], 78, "no runs at /nowhere/at/all"),
        (["--keep-days", "1", "--runs-uri", "nonsense://x"], 78, "--runs-uri nonsense://x"),
        (
            ["--keep-days", "1", "--runs-uri", "/etc/hostname"],
            74,
            "cannot list /etc/hostname: Not a directory",
        ),
    ],
)
def test_what_cannot_work_is_one_line_with_its_code(
    call: Call, arguments: list[str], code: int, text: str
) -> None:
    """Wrong usage is 2, no runs 78, an unreadable folder 74."""
    outcome = call("prune", *arguments)
    assert outcome.code == code
    assert text in outcome.err.splitlines()[-1]


def test_what_cannot_be_removed_does_not_save_the_rest(
    call: Call, runs: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run that cannot be removed is named, exit code 74; the others are removed all the same."""
    for name in ("a-old", "b-stuck", "c-old"):
        make(name, 40)
    make("newest", 1)
    stuck = f"{runs / 'b-stuck'}"
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if str(path) == stuck:
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)  # root, who runs tests in containers, is refused nothing
    outcome = call("prune", "--keep-days", "30")
    assert outcome.code == 74
    assert f"1 runs could not be pruned, the others were; first: cannot remove {stuck}" in outcome.err
    assert left(runs) == ["b-stuck", "newest"]


@pytest.fixture
def bucket(tmp_path: Path) -> FsspecRunsRoot:
    """Lay out two runs in an object store."""
    root = open_runs(f"memory://{tmp_path.name}/runs")
    assert isinstance(root, FsspecRunsRoot)
    store: Any = fsspec.filesystem("memory")
    for name in ("one", "two"):
        for path in ("run.json", "_SUCCESS", "output/predictions.csv", "quality/docs/a[1]*.html"):
            store.pipe_file(f"/{tmp_path.name}/runs/{name}/{path}", b"{}")
    store.pipe_file(f"/{tmp_path.name}/runs/other/data", b"x")
    return root


def test_an_object_stores_runs_are_seen_and_removed(bucket: FsspecRunsRoot) -> None:
    """Each run has its size and time; one is removed whole, names with wildcards included; the rest stays."""
    found = {run.name: run for run in bucket.runs()}
    assert {name: run.size for name, run in found.items()} == {"one": 8, "two": 8}
    assert abs((found["one"].finished or 0) - time.time()) < 60
    bucket.remove(found["one"])
    assert [run.name for run in bucket.runs()] == ["two"]
    store: Any = fsspec.filesystem("memory")
    assert [path for path in store.store if "/runs/one/" in path and bucket.uri.split("//")[1] in path] == []


def test_a_removal_from_a_bucket_that_was_cut_short_is_seen(bucket: FsspecRunsRoot, tmp_path: Path) -> None:
    """A tombstone marks a run as half removed even when its run.json is gone."""
    store: Any = fsspec.filesystem("memory")
    store.pipe_file(f"/{tmp_path.name}/runs/one/_PRUNED", b"")
    store.rm_file(f"/{tmp_path.name}/runs/one/run.json")
    halves = [run.name for run in bucket.runs() if run.removed_by_half]
    assert halves == ["one"]
    bucket.remove(StoredRun("one", removed_by_half=True))
    assert [run.name for run in bucket.runs()] == ["two"]
