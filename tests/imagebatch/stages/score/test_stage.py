"""Scoring whatever happens to a request, and attempts that resume and fence each other."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import ShardDone
from imagebatch.errors import RunHeldError
from imagebatch.runs.folder import open_run
from imagebatch.stages.score.attempts import Attempt
from imagebatch.stages.score.shard import PART_ROWS

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.model_server import LABELS, Images, ModelServer, Wrong

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can share memory so")


@pytest.fixture
def prepared(call: Call, images: Path) -> str:
    """A preprocessed run of 40 images in one shard."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    return "r"


def finish(call: Call, runs: Path, run_id: str = "r") -> bytes:
    assert call("postprocess", "--run-id", run_id).code == 0
    return (runs / run_id / "output/predictions.csv").read_bytes()


def test_many_images_per_request_and_few_in_flight(call: Call, prepared: str, server: ModelServer) -> None:
    """40 images at 8 a request, the last 8 shared out between the two that may be under way at once."""
    sizes: list[int] = []

    def slow(_number: int, pack: Images) -> None:
        sizes.append(len(pack))
        time.sleep(0.05)

    server.faults = slow
    outcome = call("score", "--run-id", prepared, "--pack-size", 8, "--in-flight", 2)
    assert outcome.last | {"run_id": ""} == {
        "run_id": "", "stage": "score", "shard": 0, "predicted": 40, "failed": 0, "resumed": 0,
    }  # fmt: skip
    assert sorted(sizes, reverse=True) == [8, 8, 8, 8, 4, 4]
    assert server.most_at_once <= 2


def test_requests_begin_small_and_end_small(call: Call, images: Path, server: ModelServer) -> None:
    """The server has work at once, and its workers end together, however the last shard was cut."""
    sizes: list[int] = []
    server.faults = lambda _number, pack: sizes.append(len(pack))
    for seed in range(400):
        (images / f"more-{seed}.jpg").write_bytes(jpeg(seed, (8, 8)))
    # The last shard has 38 images: more are in the last requests that share out what is left.
    assert call("preprocess", "--run-id", "many", "--input", images, "--shard-size", 67).code == 0
    assert call("score", "--run-id", "many", "--in-flight", 1).code == 0
    assert sorted(sizes) == [16, 19, 32, 38, 67, 67, 67, 67, 67]
    sizes.clear()
    assert call("preprocess", "--run-id", "again", "--input", images, "--shard-size", 67).code == 0
    assert call("score", "--run-id", "again", "--in-flight", 8).code == 0
    assert sum(sizes) == 440
    assert max(sizes) == 67
    # Whatever a request holds, as much is left for those after it, which are smaller.
    sizes.sort()
    together = zip(sizes, itertools.accumulate(sizes), strict=True)
    assert all(2 * size - 1 <= left for size, left in together if size > 4)


@pytest.mark.parametrize("room", [0, 3])
def test_large_images_go_in_smaller_requests(
    call: Call, images: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """A request takes no more bytes than are good to hold in memory; what is larger goes alone."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    packs: list[list[int]] = []
    server.faults = lambda _number, pack: packs.append([len(data) for _, data in pack])
    largest = max(path.stat().st_size for path in images.rglob("*.jpg"))
    monkeypatch.setattr("imagebatch.scorer.scorer.LARGEST_PACK", room * largest)
    assert call("score", "--run-id", "r", "--pack-size", 40, "--in-flight", 1).code == 0
    assert sum(map(len, packs)) == 40
    assert all(len(pack) == 1 or sum(pack) <= room * largest for pack in packs)
    assert sorted(map(len, packs))[1] >= room  # the last of all may be what is left


@pytest.mark.parametrize("room", [0, 3])
def test_large_pictures_go_in_smaller_requests(
    call: Call, images: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """A request takes no more pixels than are decoded in good time, however few bytes they are."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    packs: list[int] = []
    server.faults = lambda _number, pack: packs.append(len(pack))
    monkeypatch.setattr("imagebatch.scorer.scorer.MOST_PIXELS", room * 24 * 16)
    assert call("score", "--run-id", "r", "--pack-size", 40, "--in-flight", 1).code == 0
    assert sum(packs) == 40
    assert max(packs) == max(room, 1)


@pytest.mark.parametrize("by_memory", [False, pytest.param(True, marks=LINUX)])
@pytest.mark.parametrize(
    "wrong",
    [
        Wrong(503, b"{}"),
        Wrong(500, b"Worker died."),
        Wrong(200, b"<html>"),
        Wrong(hang_up=True),
        Wrong(200, b"x" * 64, half=True),
    ],
)
def test_passing_faults_leave_no_trace(
    call: Call, images: Path, runs: Path, server: ModelServer, wrong: Wrong, *, by_memory: bool
) -> None:
    """Every request fails the first time; the CSV is the one of a calm run of bodies, byte for byte."""
    asked: set[str] = set()

    def once(_number: int, pack: Images) -> Wrong | None:
        first = pack[0][0] not in asked
        asked.add(pack[0][0])
        return wrong if first else None

    for run_id in ("calm", "stormy"):
        assert call("preprocess", "--run-id", run_id, "--input", images).code == 0
        assert call("score", "--run-id", run_id, "--pack-size", 5).code == 0
        server.faults, server.opens_memory = once, by_memory
    assert server.requests > 2 * len(asked)
    assert (server.by_memory > len(asked)) == by_memory
    assert finish(call, runs, "calm") == finish(call, runs, "stormy")


@pytest.mark.parametrize("labels", [["cat", "dog", "cow", "hen"], [LABELS[0], *LABELS[:3]]])
def test_labels_that_cannot_be_are_asked_for_again(
    call: Call, prepared: str, runs: Path, server: ModelServer, labels: list[str]
) -> None:
    """A reply of the right form about other classes, or one class twice, is not written; the next one is."""
    server.faults = lambda number, pack: (
        Wrong(body=json.dumps(with_labels(server, pack, labels)).encode()) if number == 1 else None
    )
    assert call("score", "--run-id", prepared).last["predicted"] == 40
    assert server.requests > 1
    rows = finish(call, runs).decode().splitlines()[1:]
    assert all(len(set(line.split(",")[2:6])) == 4 and "cat" not in line for line in rows)


def with_labels(server: ModelServer, pack: Images, labels: list[str]) -> dict[str, object]:
    answers = [{"id": name, "labels": labels, "probabilities": [0.4, 0.3, 0.2, 0.1]} for name, _ in pack]
    return {"model": server.description()["model"], "images": answers}


def test_the_cause_is_told_and_not_its_consequence(call: Call, prepared: str, server: ModelServer) -> None:
    """One request is refused for its key while another waits: the exit code is the refusal's, at once."""

    def refuse(_number: int, pack: Images) -> Wrong:
        first = pack[0][0].startswith("0-") and len(pack) == 30
        return Wrong(503) if first else Wrong(400, b"InvalidKeyException", pause=0.3)

    server.faults = refuse
    outcome = call("score", "--run-id", prepared, "--pack-size", 30, "--retry-seconds", 60)
    assert (outcome.code, "the model server wants a key" in outcome.err) == (78, True)


def test_a_run_stopped_for_its_failures_goes_on_when_their_cause_is_gone(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """After 65 the parts with failures are scored again, instead of being refused for ever."""
    poison = {(images / name).read_bytes() for name in ("001.jpg", "002.jpg")}
    server.faults = lambda _number, pack: Wrong(500) if any(data in poison for _, data in pack) else None
    for run_id in ("calm", "refused"):
        call("preprocess", "--run-id", run_id, "--input", images, "--max-failures", 1)
    assert call("score", "--run-id", "refused", "--pack-size", 4).code == 65
    server.faults = lambda _number, _images: None
    for run_id in ("calm", "refused"):
        assert call("score", "--run-id", run_id).last["predicted"] == 40
    assert finish(call, runs, "calm") == finish(call, runs, "refused")


def test_a_poison_image_is_quarantined_alone(
    call: Call, prepared: str, runs: Path, images: Path, server: ModelServer
) -> None:
    """A request that kills the worker is halved until the culprit is alone; all 39 others are scored."""
    poison = (images / "001.jpg").read_bytes()

    def kill(_number: int, pack: Images) -> Wrong | None:
        return Wrong(500, b"Worker died.") if any(data == poison for _, data in pack) else None

    server.faults = kill
    outcome = call("score", "--run-id", prepared, "--pack-size", 16)
    assert (outcome.last["predicted"], outcome.last["failed"]) == (39, 1)
    finish(call, runs)
    (row,) = (runs / "r/output/failures.csv").read_text().splitlines()[1:]
    assert row.startswith("001.jpg,")
    assert ",score,quarantined," in row


def test_a_dead_server_quarantines_nobody(call: Call, prepared: str, server: ModelServer) -> None:
    """When every prediction fails, the stage ends with 69, however well the server describes its model."""
    server.faults = lambda _number, _images: Wrong(500, b"Worker died.")
    outcome = call("score", "--run-id", prepared)
    assert outcome.code == 69
    assert "no answer from the model API" in outcome.err


def test_an_outage_of_predictions_alone_quarantines_nobody(
    call: Call, prepared: str, server: ModelServer
) -> None:
    """Pages in the place of predictions, for a second, are the server's fault: all images are scored."""
    over = time.monotonic() + 1
    server.faults = lambda _number, _images: Wrong(200, b"<html>") if time.monotonic() < over else None
    outcome = call("score", "--run-id", prepared, "--pack-size", 2, "--retry-seconds", 60)
    assert (outcome.code, outcome.last["predicted"]) == (0, 40)


def test_an_image_that_ends_the_whole_server_is_blamed(
    call: Call, images: Path, runs: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it starts again nobody is reached, which is no sign of a server that fails good requests."""
    monkeypatch.setattr("imagebatch.model_apis.retry.FIRST_PAUSE", 0.001)
    killer = (images / "001.jpg").read_bytes()
    away = 0
    killed = 0

    def faults(_number: int, pack: Images) -> Wrong | None:
        nonlocal away, killed
        if away:
            away -= 1
            return Wrong(hang_up=True)
        if any(data == killer for _, data in pack):
            away, killed = 8, killed + 1
            return Wrong(hang_up=True)
        return None

    server.faults = faults
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    outcome = call("score", "--run-id", "r", "--pack-size", 1, "--in-flight", 1)
    assert (outcome.code, outcome.last["predicted"], outcome.last["failed"]) == (0, 39, 1)
    assert killed < 30
    finish(call, runs)
    assert "001.jpg,file:" in (runs / "r/output/failures.csv").read_text()


def half_dead(server: ModelServer, *, unlucky: bytes, times: int) -> None:
    """Every other request fails for good, probes too; those with one image fail the first times in a row."""
    asked = itertools.count(1)

    def fault(number: int, pack: Images) -> Wrong | None:
        if any(data == unlucky for _, data in pack):
            return Wrong(500, b"the stub is dead") if next(asked) <= times else None
        return Wrong(500, b"the stub is dead") if number % 2 else None

    server.faults = fault


def test_a_server_with_a_dead_process_quarantines_no_good_image(
    call: Call, images: Path, prepared: str, runs: Path, server: ModelServer
) -> None:
    """An image that was unlucky six times is not blamed where every other request fails for nothing."""
    call("preprocess", "--run-id", "calm", "--input", images)
    call("score", "--run-id", "calm")
    half_dead(server, unlucky=(images / "001.jpg").read_bytes(), times=6)
    outcome = call("score", "--run-id", prepared, "--pack-size", 4, "--retry-seconds", 60)
    assert (outcome.last["predicted"], outcome.last["failed"]) == (40, 0)
    assert finish(call, runs, "calm") == finish(call, runs)


def test_a_poison_image_is_told_from_a_server_with_a_dead_process(
    call: Call, images: Path, prepared: str, runs: Path, server: ModelServer
) -> None:
    """It fails more often than chance would have it: it alone is quarantined, and says how often."""
    half_dead(server, unlucky=(images / "001.jpg").read_bytes(), times=10_000)
    outcome = call("score", "--run-id", prepared, "--pack-size", 4, "--retry-seconds", 60)
    assert (outcome.last["predicted"], outcome.last["failed"]) == (39, 1)
    finish(call, runs)
    (row,) = (runs / "r/output/failures.csv").read_text().splitlines()[1:]
    tries = int(row.partition("failed alone in ")[2].partition(" ")[0])
    assert 6 < tries < 60  # on a sound server four


def test_where_nobody_can_tell_the_run_stops(
    call: Call, images: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that fails nearly every request blames no image: code 69, with the share that fails."""
    monkeypatch.setattr("imagebatch.model_apis.retry.LONGEST_PAUSE", 0.001)
    call("preprocess", "--run-id", "few", "--input", images, "--limit", 2)
    poison = (images / "001.jpg").read_bytes()
    chance = random.Random(7)

    def fault(_number: int, pack: Images) -> Wrong | None:
        bad = any(data == poison for _, data in pack) or chance.random() < 0.97
        return Wrong(500, b"the stub is dead") if bad else None

    server.faults = fault
    outcome = call("score", "--run-id", "few", "--in-flight", 1, "--retry-seconds", 60)
    assert (outcome.code, "nobody can tell" in outcome.err) == (69, True), outcome.err[-300:]


def test_a_pack_that_is_too_large_is_halved(call: Call, prepared: str, server: ModelServer) -> None:
    """413 means smaller requests, not lost images."""
    server.faults = lambda _number, pack: Wrong(413) if len(pack) > 3 else None
    assert call("score", "--run-id", prepared).last["predicted"] == 40


def test_an_api_that_is_away_is_69(call: Call, prepared: str, server: ModelServer) -> None:
    """Nobody answers: a retry helps."""
    server.close()
    outcome = call("score", "--run-id", prepared, "--retry-seconds", 1)
    assert outcome.code == 69


def test_another_model_stops_the_run(call: Call, prepared: str, server: ModelServer) -> None:
    """A digest that changes between the stages, or in the middle of one, is 78: no CSV of two models."""

    def swap(number: int, _images: Images) -> None:
        server.digest = "sha256:" + "cd" * 32 if number > 2 else server.digest

    server.faults = swap
    middle = call("score", "--run-id", prepared, "--pack-size", 5)
    assert (middle.code, "the model changed during the run" in middle.err) == (78, True)
    before = call("score", "--run-id", prepared)
    assert (before.code, "start a new run" in before.err) == (78, True)


def test_changed_and_vanished_files_are_failures(call: Call, prepared: str, images: Path, runs: Path) -> None:
    """What is scored is what was listed and hashed, or it is a row in failures.csv."""
    (images / "001.jpg").write_bytes(jpeg(999))
    (images / "002.jpg").unlink()
    assert call("score", "--run-id", prepared).last["failed"] == 2
    finish(call, runs)
    reasons = [line.split(",")[3] for line in (runs / "r/output/failures.csv").read_text().splitlines()[1:]]
    assert reasons == ["content_changed", "not_found"]


def test_a_finished_shard_is_not_scored_again(call: Call, prepared: str, server: ModelServer) -> None:
    """Running the stage again asks the model nothing."""
    call("score", "--run-id", prepared)
    requests = server.requests
    assert call("score", "--run-id", prepared).last["resumed"] == 40
    assert server.requests == requests


def test_kill_9_costs_the_requests_in_flight(
    call: Call, tmp_path: Path, runs: Path, server: ModelServer
) -> None:
    """What was answered is never asked again, in a written part or not; the CSV is that of a calm run."""
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(600):
        (folder / f"{seed:04}.jpg").write_bytes(jpeg(seed, (8, 8)))
    for run_id in ("calm", "killed"):
        assert call("preprocess", "--run-id", run_id, "--input", folder, "--shard-size", 1000).code == 0
    assert call("score", "--run-id", "calm").last["resumed"] == 0

    command = [sys.executable, "-m", "imagebatch", "score", "--run-id", "killed"]
    command += ["--in-flight", "1", "--pack-size", "32"]
    server.requests = 0
    answered: list[int] = []
    scorer = subprocess.Popen(command)

    def kill_at_the_twelfth(number: int, images: Images) -> None:
        if number < 12:
            answered.append(len(images))
        else:
            scorer.kill()

    server.faults = kill_at_the_twelfth
    assert scorer.wait(30) == -signal.SIGKILL

    server.faults = lambda _number, _images: None
    server.images.clear()
    outcome = call("score", "--run-id", "killed")
    assert len(answered) == 11
    assert outcome.last["resumed"] == sum(answered) > PART_ROWS
    assert len(server.images) == 600 - sum(answered)
    assert not list(runs.glob("killed/scores/*/journal-*"))
    assert finish(call, runs, "calm") == finish(call, runs, "killed")


def test_a_superseded_attempt_changes_nothing(call: Call, prepared: str, runs: Path) -> None:
    """An orphan can neither add a part that counts nor finish the shard once a newer attempt has started."""
    run = open_run(str(runs), prepared)
    orphan = Attempt.claim(run, 0)
    assert call("score", "--run-id", prepared).last["predicted"] == 40
    done = run.read("scores/shard-00000/_DONE.json")
    with pytest.raises(RunHeldError, match="attempt 1 at shard 0 was superseded"):
        orphan.write_part(0, pq.read_table(runs / "r/manifest/shard-00000.parquet"))
    with pytest.raises(RunHeldError):
        orphan.finish(ShardDone(attempt=1, parts=[], predicted=0, failed=0))
    assert run.read("scores/shard-00000/_DONE.json") == done


@pytest.mark.usefixtures("prepared")
def test_two_scorers_on_one_shard(call: Call, runs: Path, server: ModelServer) -> None:
    """Started at the same time, one finishes and the other stops with 75; every image has one row."""
    server.faults = lambda _number, _images: time.sleep(0.3)
    command = [sys.executable, "-m", "imagebatch", "score", "--run-id", "r", "--pack-size", "4"]
    scorers = [subprocess.Popen(command) for _ in range(2)]
    codes = sorted(scorer.wait(60) for scorer in scorers)
    assert codes in ([0, 75], [0, 0])
    assert finish(call, runs).count(b"\r\n") == 41
    assert json.loads((runs / "r/output/certificate.json").read_bytes())["counts"]["predicted"] == 40


def test_a_damaged_part_is_not_adopted(call: Call, prepared: str, runs: Path, server: ModelServer) -> None:
    """A part that a crash or a disk has damaged is scored again, never trusted."""
    folder = runs / "r/scores/shard-00000"
    folder.mkdir(parents=True)
    (folder / "attempt-00001.json").write_text("{}")
    (folder / f"part-00000-attempt-00001-{sha256_hex(b'PAR1')}.parquet").write_bytes(b"PAR1 damaged PAR1")
    assert call("score", "--run-id", prepared).last | {"resumed": 0} == {
        "run_id": "r", "stage": "score", "shard": 0, "predicted": 40, "failed": 0, "resumed": 0,
    }  # fmt: skip
    assert len(server.images) == 40


def test_unknown_run_and_shard(call: Call, prepared: str) -> None:
    """One line each, 78: a retry cannot help."""
    missing = call("score", "--run-id", "nothing")
    assert (missing.code, "start it with imagebatch preprocess" in missing.err) == (78, True)
    beyond = call("score", "--run-id", prepared, "--shard", 7)
    assert (beyond.code, "has shards 0 to 0, not 7" in beyond.err) == (78, True)


def test_a_reason_that_only_the_server_knows_is_named(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """Reasons are a fixed list: an unknown one counts as decode_failed, and its own word is not lost."""
    (images / "broken.jpg").write_bytes(jpeg(7) + b"BROKEN")
    server.tamper = lambda reply: json.dumps(reply).replace('"truncated"', '"cursed\\nscanner"').encode()
    arguments = ("--run-id", "r", "--input", images, "--max-failures", "1")
    assert call("run", *arguments).last["failed"] == 1
    _, line = (runs / "r/output/failures.csv").read_text().splitlines()
    assert ",score,decode_failed," in line
    assert "the model API gives the reason 'cursed\\nscanner': image file is truncated" in line
