"""Pushed metrics: names, groups, and that a gateway can neither fail nor delay a stage."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagebatch.contracts.records import LeftOut
from imagebatch.observe import metrics, push

from tests.support.calls import Call
from tests.support.gateway import Gateway
from tests.support.model_server import ModelServer, Wrong
from tools.paths import ROOT

FAMILIES = {family.name: family for family in (*metrics.RUN_FAMILIES, *metrics.STAGE_FAMILIES)}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    taking = Gateway()
    monkeypatch.setenv("IMAGEBATCH_METRICS_URL", taking.url)
    monkeypatch.setenv("IMAGEBATCH_PIPELINE", "nightly")
    yield taking
    taking.close()


def test_a_run_shows_its_counts_its_reasons_and_its_success(
    gateway: Gateway, call: Call, images: Path, runs: Path
) -> None:
    """What a gateway holds after a run agrees with its certificate, and says when the next run is due."""
    (images / "bad.jpg").write_bytes(b"")
    for name in ("notes.txt", "b/notes.txt"):
        (images / name).write_bytes(b"")
    begun = time.time()
    more = ("--next-run", "2030-01-01T02:00:00Z", "--deadline", "2030-01-01T00:00:00Z")
    assert call("run", "--run-id", "a", "--input", images, *more).code == 0
    outcomes = {"listed": 41, "accepted": 40, "rejected": 1, "predicted": 40, "failed": 0}
    for outcome, expected in outcomes.items():
        assert gateway.value("pipeline/nightly", "imagebatch_run_images", outcome=outcome) == expected
    reasons = gateway.groups["/metrics/job/imagebatch/pipeline/nightly"]
    unpredicted = {dict(k[1])["reason"]: v for k, v in reasons.items() if "without_prediction" in k[0]}
    assert {reason for reason, count in unpredicted.items() if count} == {"empty"}
    left_out = {dict(k[1])["reason"]: v for k, v in reasons.items() if "files_left_out" in k[0]}
    assert {reason: count for reason, count in left_out.items() if count} == {"no_image_suffix": 2}
    assert set(left_out) == set(LeftOut)
    assert (
        begun <= gateway.value("pipeline/nightly", "imagebatch_last_success_timestamp_seconds") <= time.time()
    )
    assert gateway.value("pipeline/nightly", "imagebatch_next_run_timestamp_seconds") == 1893463200
    assert gateway.value("pipeline/nightly", "imagebatch_run_deadline_timestamp_seconds") == 1893456000
    ((_, pairs),) = [key for key in reasons if key[0] == "imagebatch_run_model_info"]
    model = dict(pairs)
    assert (model["model"], model["backend"], model["engine"]) == ("solar-cells", "torchserve", "fixed")
    assert "engine" not in json.loads((runs / "a" / "run.json").read_text())["model"]


def test_each_stage_has_a_group_with_its_images_and_its_end(
    gateway: Gateway, call: Call, images: Path
) -> None:
    """Stages of one process do not share counts, and each shows how it ended."""
    assert call("run", "--run-id", "a", "--input", images).code == 0
    for stage in ("preprocess", "check_manifest", "score", "check_predictions", "postprocess"):
        assert gateway.value(f"pipeline/nightly/stage/{stage}", "imagebatch_stage_exit_code") == 0
    group = "pipeline/nightly/stage/score"
    assert gateway.value(group, "imagebatch_stage_images_total", outcome="ok") == 40
    assert gateway.value(group, "imagebatch_stage_images_expected") == 40
    assert gateway.value(group, "imagebatch_scoring_images_total") == 40
    assert gateway.value(group, "imagebatch_stage_cpu_seconds_total") > 0
    assert gateway.value(group, "imagebatch_runs_disk_free_bytes") > 0


def test_a_shard_has_its_own_group_and_what_was_done_before_is_told_apart(
    gateway: Gateway, call: Call, images: Path, server: ModelServer
) -> None:
    """A second attempt shows the first one's images as `earlier`, so that they do not count as speed."""
    call("preprocess", "--run-id", "a", "--input", images, "--shard-size", 20)
    server.faults = lambda number, _: None if number < 3 else Wrong(503)
    assert call("score", "--run-id", "a", "--shard", 1, "--pack-size", 4, "--in-flight", 1).code == 69
    group = "pipeline/nightly/shard/1/stage/score"
    assert gateway.value(group, "imagebatch_stage_exit_code") == 69
    assert gateway.value(group, "imagebatch_scoring_faults_total", fault="overloaded") > 0
    server.faults = lambda *_: None
    assert call("score", "--run-id", "a", "--shard", 1).code == 0
    earlier = gateway.value(group, "imagebatch_stage_images_total", outcome="earlier")
    assert 0 < earlier < 20
    assert gateway.value(group, "imagebatch_stage_images_total", outcome="ok") == 20 - earlier


def test_a_long_stage_pushes_while_it_works(gateway: Gateway, call: Call, images: Path) -> None:
    """The forecast of a deadline needs figures before the end."""
    call("preprocess", "--run-id", "a", "--input", images)
    call("score", "--run-id", "a", "--metrics-interval", "0.05", "--pack-size", 1)
    assert gateway.pushes.count(("PUT", "/metrics/job/imagebatch/pipeline/nightly/stage/score")) > 2


def test_no_address_no_push(
    gateway: Gateway, call: Call, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are off unless an installation sets where they go."""
    monkeypatch.delenv("IMAGEBATCH_METRICS_URL")
    assert call("preprocess", "--run-id", "a", "--input", images).code == 0
    assert gateway.pushes == []


def test_a_gateway_that_is_away_is_one_line_of_the_log(
    call: Call, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run succeeds, and each stage complains once, however often it pushed in vain."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("IMAGEBATCH_METRICS_URL", url)
        outcome = call("preprocess", "--run-id", "a", "--input", images, "--metrics-interval", "0.01")
    assert outcome.code == 0
    assert outcome.err.count("metrics are not pushed") == 1


def test_a_gateway_that_hangs_delays_no_stage(
    call: Call, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that accepts and never answers costs at most the wait for the last push."""
    monkeypatch.setattr(push, "LONGEST_WAIT", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("IMAGEBATCH_METRICS_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        outcome = call("preprocess", "--run-id", "a", "--input", images)
        assert outcome.code == 0
        assert time.monotonic() - begun < push.TIMEOUT
    assert outcome.err.count("metrics are not pushed") == 1


def test_names_follow_the_conventions() -> None:
    """Every name is ours, says its unit, ends in _total only where it grows, and has no run as a label."""
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"imagebatch_[a-z_]+", name)
        assert name.endswith("_total") == (family.kind == "counter")
        assert not {"run", "run_id", "image_id"} & set(family.labels)
        assert not re.search(r"millis|micro|minutes|_mb|_kb|percent", name)


def test_every_name_stands_in_the_reference() -> None:
    """docs/reference/metrics.md has each metric with its meaning."""
    page = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
    for family in FAMILIES.values():
        assert f"| `{family.name}` | {', '.join(family.labels)} | {family.meaning} |" in page


def test_a_redrive_is_one_stage_and_its_postprocess_a_part_of_it(
    gateway: Gateway, call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """Its end counts for the redrive alone, while the run's records name both stages' own times."""
    server.faults = lambda _number, pack: Wrong(500, b"Worker died.") if len(pack) == 1 else None
    (images / "empty.jpg").write_bytes(b"")
    assert call("run", "--run-id", "a", "--input", images).code == 0
    server.faults = lambda _number, _images: None
    gateway.groups.clear()
    (images / "empty.jpg").write_bytes((images / "001.jpg").read_bytes())
    assert call("redrive", "--run-id", "a").code == 0
    stages = {path.partition("/stage/")[2] for path in gateway.groups if "/stage/" in path}
    assert stages == {"redrive"}
    assert gateway.value("pipeline/nightly", "imagebatch_run_images", outcome="predicted") == 41
    records = [json.loads(path.read_bytes())["stage"] for path in (runs / "a/telemetry/stages").iterdir()]
    assert records.count("postprocess") == 2
    assert "redrive" not in records


def test_a_measurement_is_no_run_of_a_pipeline(gateway: Gateway, call: Call, images: Path) -> None:
    """`bench` and `tune` preprocess and score copies of a run: none of it reaches the gateway."""
    assert call("bench", "--input", images, "--rounds", "1").code == 0
    assert gateway.pushes == []
