"""Several endpoints of one model: balanced, left out while they are dead, and never of two models."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from imagebatch.errors import ConfigurationError
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload, ModelApi, Reply
from imagebatch.settings import ApiSettings

from tests.support.calls import Call, scored
from tests.support.images import jpeg
from tests.support.model_server import DIGEST, ModelServer, Wrong

PACK = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(3)]
DEAD = "http://127.0.0.1:1"


@pytest.fixture
def other() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def both(server: ModelServer, other: ModelServer) -> Iterator[ModelApi]:
    """One API of two servers."""
    api = open_backend(
        "torchserve", ApiSettings(api_url=f"{server.url},{other.url}", request_timeout=5), "solar-cells", ""
    )
    yield api
    api.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for an event."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def crowd(api: ModelApi, requests: int) -> list[Reply]:
    """Ask from four threads, so that one endpoint alone would not do."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda _: api.predict(PACK, 2), range(requests)))


def slow(_number: int, _images: object) -> None:
    time.sleep(0.01)


def cut(_number: int, _images: object) -> Wrong:
    return Wrong(hang_up=True)


def test_requests_are_balanced_by_what_each_bears(
    server: ModelServer, other: ModelServer, both: ModelApi
) -> None:
    """The slower of two endpoints gets fewer requests, and some."""
    other.faults = lambda _number, _images: time.sleep(0.1)
    both.describe()
    assert len(set(crowd(both, 60))) == 1
    assert server.requests > 2 * other.requests > 0


def test_a_dead_endpoint_is_left_out_and_comes_back(
    server: ModelServer, other: ModelServer, both: ModelApi
) -> None:
    """No request fails while one is dead, and it gets requests again once it answers."""
    both.describe()
    server.faults, other.faults = slow, cut
    crowd(both, 20)
    asked = other.requests
    assert 1 <= asked <= 4
    assert server.requests == 20
    other.faults = slow
    seen = len(other.images)
    until(lambda: crowd(both, 8) and PACK[0].data in other.images[seen:])


def test_an_overloaded_endpoint_is_passed_over(
    server: ModelServer, other: ModelServer, both: ModelApi
) -> None:
    """The other one answers; when both refuse, the scorer hears of it with the pause that was asked for."""
    both.describe()
    other.faults = lambda _number, _images: Wrong(503, b"", {"Retry-After": "7"})
    for _ in range(6):
        both.predict(PACK, 2)
    server.faults = other.faults
    with pytest.raises(ApiFaultError) as caught:
        both.predict(PACK, 2)
    assert (caught.value.fault, caught.value.retry_after) == (Fault.OVERLOADED, 7.0)


def test_what_an_image_may_have_done_is_not_tried_elsewhere(
    server: ModelServer, other: ModelServer, both: ModelApi
) -> None:
    """An image that kills workers is the scorer's to isolate, and not to be handed from server to server."""
    server.faults = other.faults = lambda _number, _images: Wrong(500, b"Worker died.")
    with pytest.raises(ApiFaultError, match="worker_died"):
        both.predict(PACK, 2)
    assert server.requests + other.requests == 1


def test_endpoints_of_two_models_are_refused(server: ModelServer, other: ModelServer, both: ModelApi) -> None:
    """The line says which endpoint has which digest; nothing is scored by both."""
    other.digest = "sha256:" + "cd" * 32
    with pytest.raises(ConfigurationError, match="do not serve one model") as caught:
        both.describe()
    assert f"{server.url} {DIGEST}" in str(caught.value)
    assert f"{other.url} {other.digest}" in str(caught.value)


def test_an_endpoint_that_comes_back_with_another_model_stays_left_out(
    server: ModelServer, other: ModelServer, both: ModelApi
) -> None:
    """It is probed, and gets no image of the run."""
    both.describe()
    server.faults, other.faults = slow, cut
    crowd(both, 8)
    other.digest = "sha256:" + "cd" * 32
    seen = len(other.images)
    other.faults = slow
    until(lambda: len(other.images) > seen)  # the probe's image
    assert {reply.digest for reply in crowd(both, 12)} == {DIGEST}
    assert both.describe().digest == DIGEST
    assert PACK[0].data not in other.images[seen:]


def test_a_run_goes_on_with_the_endpoints_that_are_there(
    call: Call, images: Path, runs: Path, server: ModelServer, other: ModelServer
) -> None:
    """One is dead from the start and one dies in the middle: the CSV is that of one good server."""
    scored(call, "reference", images)
    other.faults = lambda number, _images: Wrong(hang_up=True) if number > 2 else None
    asked = ("--api-url", f"{DEAD},{other.url},{server.url}", "--pack-size", "4")
    outcome = scored(call, "several", images, "--api-url", asked[1], asked=asked)
    assert outcome.code == 0
    assert other.images  # it had its share while it lived
    found = [(runs / run / "output" / "predictions.csv").read_bytes() for run in ("reference", "several")]
    assert found[0] == found[1]


def test_a_run_tells_which_endpoint_answered(
    call: Call, images: Path, runs: Path, server: ModelServer, other: ModelServer
) -> None:
    """Each part counts its images by endpoint, the certificate adds them up; no address shows a password."""
    scored(call, "reference", images)
    server.faults = other.faults = slow
    with_password = f"{server.url},{other.url.replace('http://', 'http://me:secret@')}/"
    asked = ("--api-url", with_password, "--pack-size", "4")
    assert scored(call, "several", images, "--shard-size", 25, asked=asked).code == 0
    assert call("verify", "--run-id", "several").code == 0
    parts = sorted((runs / "several" / "scores").rglob("*.parquet"))
    told = [json.loads(pq.read_schema(part).metadata[b"imagebatch.endpoints"]) for part in parts]
    assert [sum(counts.values()) for counts in told] == [25, 15]
    certificate = json.loads((runs / "several/output/certificate.json").read_text())
    assert certificate["endpoints"] == dict(sorted(sum(map(Counter, told), Counter()).items()))
    assert certificate["endpoints"].keys() == {server.url, other.url}
    assert call("report", "--run-id", "several").code == 0
    page = (runs / "several/output/report.html").read_text()
    assert f"<code>{server.url}</code>: {certificate['endpoints'][server.url]}" in page
    written = [file.read_bytes() for file in (runs / "several").rglob("*") if file.is_file()]
    assert not any(b"secret" in content for content in written)
    single = json.loads((runs / "reference/output/certificate.json").read_text())
    assert "endpoints" not in single
    tables = [(runs / run / "output" / "predictions.csv").read_bytes() for run in ("reference", "several")]
    assert tables[0] == tables[1]


def test_an_interrupted_run_still_knows_who_answered(
    call: Call, images: Path, runs: Path, server: ModelServer, other: ModelServer
) -> None:
    """What the journal has kept of an attempt that broke off counts for the endpoint that had answered it."""
    both = ("--api-url", f"{server.url},{other.url}", "--pack-size", "4", "--in-flight", "1")
    where = ("--run-id", "broken")
    assert call("preprocess", "--input", images, *where).code == 0
    server.faults = other.faults = lambda number, _images: Wrong(503) if number > 3 else None
    assert call("score", *where, *both, "--retry-seconds", "0").code == 69
    kept = server.images + other.images
    assert 0 < len([image for image in kept if len(image) > 300]) < 40  # without the probes
    server.faults = other.faults = lambda _number, _images: None
    assert call("score", *where, *both).code == 0
    done = json.loads((runs / "broken/scores/shard-00000/_DONE.json").read_text())
    assert sum(done["endpoints"].values()) == 40
    assert done["endpoints"].keys() == {server.url, other.url}


def test_without_any_endpoint_the_run_waits_and_ends(call: Call, images: Path) -> None:
    """As with one server: code 69 after --retry-seconds, to be run again."""
    both = f"{DEAD},http://127.0.0.1:2"
    outcome = call("preprocess", "--run-id", "r", "--input", images, "--api-url", both)
    assert outcome.code == 69


def test_addresses_that_are_none_are_a_wrong_value(call: Call, images: Path) -> None:
    """An empty one between commas is told before anything is asked."""
    outcome = call("preprocess", "--run-id", "r", "--input", images, "--api-url", f"{DEAD},,{DEAD}")
    assert (outcome.code, "--api-url" in outcome.err) == (2, True)
