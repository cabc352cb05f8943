"""Tune: the search on known landscapes, and the command against a server whose pace is known."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from imagebatch import cli
from imagebatch.measure.search import Candidate, Search, decide, grid
from imagebatch.measure.workers import counts

from tests.support.calls import Call
from tests.support.model_server import ModelServer, QuietServer, Wrong, send


def landscape(candidate: Candidate) -> float:
    """Two workers: a request costs 10 ms and 4 ms an image, and two must always be in hand."""
    each = 4 + 10 / candidate.pack_size + 0.002 * candidate.images_under_way
    busy = min(1.0, candidate.in_flight / 4)
    return 2000 * busy / each


def noisy(candidate: Candidate, share: float, source: random.Random) -> float:
    return landscape(candidate) * source.uniform(1 - share, 1 + share)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("seed", range(5))
def test_the_search_ends_near_the_best(share: float, seed: int) -> None:
    """What is chosen loses at most the noise and the smallest difference that counts."""
    source = random.Random(seed)
    search = Search(lambda candidate: noisy(candidate, share, source), rounds=3)
    chosen = search.run(grid(1024))
    best = max(landscape(Candidate(in_flight, pack)) for in_flight in range(1, 20) for pack in range(1, 300))
    assert landscape(chosen) >= best * (1 - 2 * share - 0.03)
    assert sum(map(len, search.rates.values())) < 60


def test_a_machine_that_grows_faster_favours_none() -> None:
    """Others leave the machine while it is searched: what is measured last is not therefore the best."""
    measured = 0

    def drifting(candidate: Candidate) -> float:
        nonlocal measured
        measured += 1
        return landscape(candidate) * (1 + measured / 40)

    search = Search(drifting, rounds=3)
    chosen = search.run(grid(1024))
    best = max(landscape(Candidate(in_flight, pack)) for in_flight in range(1, 20) for pack in range(1, 300))
    assert landscape(chosen) >= best * 0.93
    assert search.unrest > 0.1


def test_of_equals_the_one_with_the_fewest_images_under_way_wins() -> None:
    """Where nothing makes a difference, memory and lost work do; not everything is tried."""
    search = Search(lambda _: 100.0, rounds=3)
    chosen = search.run(grid(1024))
    assert chosen.images_under_way == min(one.images_under_way for one in search.rates)
    assert len(search.rates) < 20


def test_a_difference_below_the_spread_is_none() -> None:
    """Rates that overlap do not make a setting better; rates that never do, decide."""
    overlapping = [{8: 100.0, 64: 104.0}, {8: 108.0, 64: 102.0}, {8: 95.0, 64: 101.0}]
    assert decide(overlapping, lambda size: size) == 8
    apart = [{8: 100.0, 64: 120.0}, {8: 50.0, 64: 60.0}, {8: 200.0, 64: 240.0}]
    assert decide(apart, lambda size: size) == 64


def test_small_inputs_get_small_packs() -> None:
    """A pack never swallows the whole input: then nothing would overlap."""
    assert {one.pack_size for one in grid(1024)} == {8, 32, 128}
    assert {one.pack_size for one in grid(40)} == {8}
    assert {one.pack_size for one in grid(3)} == {1}


def test_workers_follow_the_cores() -> None:
    """One less, as many, one more, and what there is already."""
    assert counts(2, 2) == [1, 2, 3]
    assert counts(1, 8) == [1, 2, 8]


class Management:
    """A management API that scales workers; the inference API is as fast as they are many."""

    def __init__(self, server: ModelServer) -> None:
        self.workers = 1
        self.scaled: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                described = [{"workers": [{"status": "READY"}] * outer.workers}]
                send(self, Wrong(body=json.dumps(described).encode()))

            def do_PUT(self) -> None:
                outer.workers = int(parse_qs(urlsplit(self.path).query)["min_worker"][0])
                outer.scaled.append(outer.workers)
                send(self, Wrong(body=b'{"status": "scaled"}'))

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        turn = threading.Lock()

        def slow(_: int, images: list[tuple[str, bytes]]) -> None:
            with (
                turn
            ):  # one machine: the workers share it, and a second one doubles the pace, a third does not
                time.sleep(0.005 * len(images) / min(2, outer.workers))

        server.faults = slow

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def management(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Management]:
    running = Management(server)
    monkeypatch.setenv("IMAGEBATCH_MANAGEMENT_URL", running.url)
    yield running
    running.close()


def test_tune_writes_what_the_commands_read(
    call: Call, images: Path, tmp_path: Path, management: Management, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds the chosen row of the table, every command takes it, and the workers are left so."""
    monkeypatch.setattr("imagebatch.commands.tune.cores", lambda: 2)
    path = tmp_path / "tuned.env"
    outcome = call("tune", "--input", images, "--output", path, "--rounds", 2)
    assert outcome.code == 0, outcome.err
    last = outcome.last
    assert set(management.scaled) == {1, 2, 3}
    assert last["workers"] == management.workers
    assert management.workers in {
        2,
        3,
    }  # twice as fast as one; on a crowded machine the third may seem to help
    assert outcome.out.count("<- chosen") == 2
    pack, workers = (line.split() for line in outcome.out.splitlines() if "<- chosen" in line)
    assert (pack[0], workers[1]) == (str(last["pack_size"]), str(last["in_flight"]))
    _, asked = cli.parse(["score", "--run-id", "r", "--settings-file", str(path)])
    wanted = {"pack_size": last["pack_size"], "in_flight": last["in_flight"]}
    assert asked.model_dump(include=set(wanted)) == wanted
    _, asked = cli.parse(["models", "scale", "--settings-file", str(path)])
    assert asked.model_dump(include={"workers"}) == {"workers": last["workers"]}
    assert 40 < last["images_per_second"] < 440


def test_workers_are_set_back_when_tuning_fails(
    call: Call, images: Path, tmp_path: Path, management: Management, server: ModelServer
) -> None:
    """A broken-off search leaves the server as it was, and no file."""
    slow = server.faults

    def fail_later(number: int, images: list[tuple[str, bytes]]) -> Wrong | None:
        return Wrong(404, b"gone") if management.scaled else slow(number, images)

    server.faults = fail_later
    path = tmp_path / "tuned.env"
    outcome = call("tune", "--input", images, "--output", path, "--rounds", 1)
    assert outcome.code == 78
    assert management.workers == 1
    assert not path.exists()


def test_without_management_the_rest_is_tuned(call: Call, images: Path, tmp_path: Path) -> None:
    """The table says why the workers were not tried, and the file does not name their number."""
    path = tmp_path / "tuned.env"
    url = "http://127.0.0.1:1"
    outcome = call("tune", "--input", images, "--output", path, "--rounds", 1, "--management-url", url)
    assert outcome.code == 0, outcome.err
    assert f"number of workers not tried: no answer from {url}" in outcome.out
    assert "WORKERS" not in path.read_text()


def test_an_output_that_cannot_be_written_is_said_first(call: Call, images: Path, tmp_path: Path) -> None:
    """Not after minutes of measuring."""
    outcome = call("tune", "--input", images, "--output", tmp_path / "no/such/folder.env")
    assert outcome.code == 74
    assert "--output" in outcome.err
    assert len(outcome.err.splitlines()) == 1
