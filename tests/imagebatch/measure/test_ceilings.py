"""Ceilings and the verdict: what is measured, what binds, and where the short form goes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from imagebatch.errors import ModelApiUnavailableError
from imagebatch.measure import Ceiling, Figure, Reading, coded_as, server_ceiling, verdict
from imagebatch.measure.clock import Clock
from imagebatch.model_apis.base import ImagePayload
from imagebatch.model_apis.local import pool
from imagebatch.model_apis.torchserve.client import TorchServe

from tests.support.calls import Call
from tests.support.handler_archives import write_archive
from tests.support.images import encoded, jpeg, photograph
from tests.support.model_server import DIGEST, ModelServer, Wrong

SAMPLE = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(20)]


def figures(**rates: float) -> dict[Ceiling, Figure]:
    return {Ceiling(name): Figure.of([Reading(rate, 0.0)]) for name, rate in rates.items()}


@pytest.mark.parametrize(
    ("rates", "ratio", "bound_by"),
    [
        # decode 1.5 ms, model 3 ms, in-process 4.5, server 4.6, achieved 4.8
        ({"storage": 3000, "decode": 1000 / 1.5, "model": 1000 / 3, "in_process": 1000 / 4.5,
          "server": 1000 / 4.6, "achieved": 1000 / 4.8}, 4.5 / 4.8, "model"),
        # large photographs: decoding takes longer than the model
        ({"storage": 900, "decode": 1000 / 9, "model": 1000 / 3, "in_process": 1000 / 12,
          "server": 1000 / 12.5, "achieved": 1000 / 13}, 12 / 13, "decode"),
        # one image a request: the server adds more than the model takes
        ({"storage": 3000, "decode": 1000 / 1.5, "model": 1000 / 3, "in_process": 1000 / 4.5,
          "server": 1000 / 10, "achieved": 1000 / 11}, 4.5 / 11, "server"),
        # a slow bucket: reading alone takes longer than the server
        ({"storage": 1000 / 20, "decode": 1000 / 1.5, "model": 1000 / 3, "in_process": 1000 / 4.5,
          "server": 1000 / 4.6, "achieved": 1000 / 21}, 4.5 / 21, "storage"),
        # the scorer's own fault
        ({"storage": 3000, "decode": 1000 / 1.5, "model": 1000 / 3, "in_process": 1000 / 4.5,
          "server": 1000 / 4.6, "achieved": 1000 / 9}, 4.5 / 9, "scorer"),
        # without the extra: the server is what there is to compare with
        ({"storage": 3000, "server": 200, "achieved": 190}, 190 / 200, "server"),
        # without a server
        ({"storage": 3000, "decode": 1000 / 1.5, "model": 1000 / 3, "in_process": 1000 / 4.5,
          "achieved": 1000 / 4.6}, 4.5 / 4.6, "model"),
    ],
)  # fmt: skip
def test_the_largest_share_of_an_images_time_binds(
    rates: dict[str, float], ratio: float, bound_by: str
) -> None:
    """Whatever takes most of the time is what a faster machine part, or less work, would win most at."""
    found = verdict(figures(**rates), "JPEG")
    assert found.ratio == pytest.approx(ratio)
    assert found.bound_by == bound_by
    assert sum(found.milliseconds.values()) == pytest.approx(1000 / rates["achieved"], abs=0.01)
    share = found.milliseconds[bound_by] / sum(found.milliseconds.values())
    name = "JPEG decode" if bound_by == "decode" else bound_by
    assert found.line.endswith(f" ceiling; bound by: {name}, {100 * share:.0f} %")


def test_the_decoder_is_named_by_what_nearly_all_images_are() -> None:
    """By their first bytes; of a mixture nothing is said."""
    assert coded_as(SAMPLE) == "JPEG"
    assert coded_as([*SAMPLE, ImagePayload("x", encoded(photograph()))]) == "JPEG"
    assert (
        coded_as([*SAMPLE[:3], ImagePayload("x", encoded(photograph())), ImagePayload("y", b"no image")])
        == ""
    )


def test_a_figure_is_the_median_with_its_range() -> None:
    """An outlier moves the range and not the figure."""
    figure = Figure.of([Reading(100, 5), Reading(101, 4), Reading(10, 50)])
    assert (figure.rate, figure.lowest, figure.highest, figure.cpu) == (100, 10, 101, 5)
    assert figure.spread == pytest.approx(0.455)


def test_cpu_time_counts_other_processes() -> None:
    """A server is no child of the command that measures it, and its work must count."""
    clock = Clock()
    work = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert clock.reading(1).cpu > 250


def test_the_server_ceiling_is_the_servers_pace(server: ModelServer) -> None:
    """Four at once, each answered after 50 ms with five images, are 400 images/s and not more."""
    server.faults = lambda _number, _images: time.sleep(0.05)
    api = TorchServe(server.url, "solar-cells", "")
    reading = server_ceiling(api, SAMPLE, pack_size=5, in_flight=4, top_k=2, seconds=1)
    assert 150 < reading.rate < 440
    assert server.most_at_once == 4


def test_a_server_that_fails_is_not_measured(server: ModelServer) -> None:
    """A rate of refusals would look excellent."""
    server.faults = lambda number, _images: Wrong(503) if number > 3 else None
    api = TorchServe(server.url, "solar-cells", "")
    with pytest.raises(ModelApiUnavailableError, match=r"failed while it was measured: overloaded"):
        server_ceiling(api, SAMPLE, pack_size=5, in_flight=1, top_k=2, seconds=1)


def test_the_short_form_stays_out_of_the_result(
    call: Call, images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--bench adds a line to the log and a file to the telemetry; the scores are the same bytes."""
    monkeypatch.setattr(pool, "_NEEDED", ("no_such_package",))
    for run_id, more in (("plain", []), ("measured", ["--bench"])):
        assert call("preprocess", "--run-id", run_id, "--input", images).code == 0
        outcome = call("score", "--run-id", run_id, *more)
        assert outcome.code == 0
    assert "% of the server ceiling; bound by: " in outcome.err
    assert "install the extra imagebatch[local]" in outcome.err
    parts = [sorted((runs / run_id).glob("scores/**/*.parquet")) for run_id in ("plain", "measured")]
    assert [path.read_bytes() for path in parts[0]] == [path.read_bytes() for path in parts[1]]
    found = json.loads((runs / "measured/telemetry/bench-all.json").read_text())
    assert found["images_per_second"].keys() == {"storage", "server", "achieved"}
    assert not (runs / "plain/telemetry/bench-all.json").exists()


def test_the_short_form_never_fails_a_scored_run(call: Call, images: Path, server: ModelServer) -> None:
    """A server that goes away right after scoring costs the measurement only."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    server.faults = lambda _number, _images: Wrong(503) if len(server.images) >= 40 else None
    outcome = call("score", "--run-id", "r", "--bench", "--model-archive", "none.mar")
    assert (outcome.code, outcome.last["predicted"]) == (0, 40)
    assert "the ceilings could not be measured" in outcome.err


def test_bench_prints_the_table_and_one_line_of_json(call: Call, images: Path, tmp_path: Path) -> None:
    """Without --model-archive the server is the reference, and the table says what to do."""
    outcome = call("bench", "--input", images, "--rounds", 1, "--seconds", 1)
    assert outcome.code == 0, outcome.err
    last = outcome.last
    assert last["images_per_second"].keys() == {"storage", "server", "achieved"}
    assert (last["reference"], last["images"]) == ("server", 40)
    assert 0 < last["ratio"] < 1.5
    assert last["line"] in outcome.out
    assert "in-process ceilings not measured: give --model-archive" in outcome.out
    assert not (tmp_path / "runs").exists()


def test_bench_refuses_another_models_archive(call: Call, images: Path, tmp_path: Path) -> None:
    """Rates of two models have nothing to do with each other."""
    outcome = call("bench", "--input", images, "--model-archive", write_archive(tmp_path))
    assert outcome.code == 78
    assert f"the served model is {DIGEST}: their rates cannot be compared" in outcome.err


def test_without_images_there_is_nothing_to_measure(call: Call, tmp_path: Path) -> None:
    """Said at once, with the code of an empty input."""
    (tmp_path / "empty").mkdir()
    assert call("bench", "--input", tmp_path / "empty").code == 99
    assert call("tune", "--input", tmp_path / "empty", "--output", tmp_path / "x.env").code == 99


def test_nothing_of_this_is_loaded_unless_chosen() -> None:
    """The stages' image has no torch, and a usual run loads neither it nor the local backend."""
    stages = ("stages.preprocess", "stages.score", "stages.postprocess")
    modules = (*stages, "commands.verify", "commands.redrive")
    script = (
        f"import sys, importlib; [importlib.import_module('imagebatch.' + name) for name in {modules}];"
        "from imagebatch.settings.backends import BUILT_IN; importlib.import_module(BUILT_IN['torchserve']);"
        "print({'torch', 'imagebatch.model_apis.local.pool', 'imagebatch.measure'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
