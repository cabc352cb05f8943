"""The local backend: the contract of every model API, an archive's digest, and workers that die or hang."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from imagebatch.errors import ConfigurationError, UnknownModelError
from imagebatch.measure import measure_inprocess
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload, ModelApi
from imagebatch.model_apis.local import pool
from imagebatch.model_apis.local.pool import LocalModel
from imagebatch.model_apis.torchserve.client import TorchServe

from tests.support.calls import Call
from tests.support.handler_archives import DIES, HANGS, LABELS, RAISES, write_archive
from tests.support.images import jpeg
from tests.support.model_server import ModelServer

GOOD = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(5)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def model(archive: Path) -> Iterator[LocalModel]:
    """Two workers that have loaded the archive."""
    pool = LocalModel(archive, "solar-cells", "", workers=2, timeout=60)
    pool.describe()
    yield pool
    pool.close()


@pytest.fixture(params=["local", "torchserve"])
def api(request: pytest.FixtureRequest, server: ModelServer) -> ModelApi:
    """Each kind of model API: what holds for one must hold for all."""
    if request.param == "torchserve":
        return TorchServe(server.url, "solar-cells", "")
    found: LocalModel = request.getfixturevalue("model")
    return found


def fault_of(model: LocalModel, image: ImagePayload) -> ApiFaultError:
    with pytest.raises(ApiFaultError) as caught:
        model.predict([GOOD[0], image], 2)
    return caught.value


def test_every_api_describes_its_model(api: ModelApi) -> None:
    """The pin names model, version, digest and labels, the same at every call."""
    pin = api.describe()
    assert (pin.name, pin.version, pin.labels) == ("solar-cells", "1.0", LABELS)
    assert pin.digest.startswith("sha256:")
    assert len(pin.digest) == len("sha256:") + 64
    assert api.describe() == pin


def test_every_api_answers_each_image_in_order(api: ModelApi) -> None:
    """A pack's answers are those of its images asked alone, k labels each, under the pin's digest."""
    reply = api.predict(GOOD, 3)
    assert reply.digest == api.describe().digest
    assert [len(answer.labels) for answer in reply.answers] == [3] * len(GOOD)
    alone = [api.predict([image], 3).answers[0] for image in GOOD]
    assert list(reply.answers) == alone
    assert len(set(reply.answers)) > 1


def test_every_api_answers_several_threads(api: ModelApi) -> None:
    """More threads than workers get each their own answers."""
    packs = [[image] for image in GOOD] * 4
    with ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda pack: api.predict(pack, 2), packs))
    assert replies == [api.predict(pack, 2) for pack in packs]


def test_every_api_answers_as_often_as_what_it_prepared_is_called(api: ModelApi) -> None:
    """A prepared request gives the answers of `predict`, at its first call and at its second."""
    again = api.prepared(GOOD, 2)
    assert [again(), again()] == [api.predict(GOOD, 2)] * 2


def test_every_api_tells_a_bad_image_from_a_bad_request(api: ModelApi) -> None:
    """One bad image costs its own row; its neighbours have their answers."""
    reply = api.predict([GOOD[0], ImagePayload("bad", b"\xff\xd8\xff BROKEN"), GOOD[1]], 2)
    assert [bool(answer.reason) for answer in reply.answers] == [False, True, False]
    assert reply.answers[1].labels == ()


def test_every_api_embeds_the_images_asked(api: ModelApi, server: ModelServer) -> None:
    """The description names the length; answers stay as they are, and only those asked carry a vector."""
    server.embedding = 5
    length = api.describe().embedding
    plain = api.predict(GOOD, 3).answers
    asked = [dataclasses.replace(image, embed=at in {1, 4}) for at, image in enumerate(GOOD)]
    answers = api.predict(asked, 3).answers
    assert [len(answer.embedding) for answer in answers] == [0, 4 * length, 0, 0, 4 * length]
    assert answers[1].embedding != answers[4].embedding
    assert tuple(dataclasses.replace(answer, embedding=b"") for answer in answers) == plain
    bad = ImagePayload("bad", b"\xff\xd8\xff BROKEN", embed=True)
    assert not api.predict([bad], 3).answers[0].embedding


def test_an_archive_without_features_refuses_to_embed(tmp_path: Path) -> None:
    """It describes no embedding, and who asks all the same is told so in the handler's own words."""
    pool = LocalModel(write_archive(tmp_path, features=False), "solar-cells", "", workers=1, timeout=60)
    assert pool.describe().embedding == 0
    assert len(pool.predict(GOOD, 2).answers) == len(GOOD)
    fault = fault_of(pool, dataclasses.replace(GOOD[1], embed=True))
    assert "graph for openvino gives no features" in str(fault)
    pool.close()


def test_every_api_says_when_it_is_ready(api: ModelApi) -> None:
    """`ready` asks for a real prediction and returns."""
    api.ready()


def test_the_digest_is_the_archives(model: LocalModel, archive: Path) -> None:
    """It is the documented one: SHA-256 over the sorted lines of digest and name, without MAR-INF."""
    with zipfile.ZipFile(archive) as packed:
        names = [name for name in packed.namelist() if not name.startswith("MAR-INF/")]
        lines = sorted(f"{hashlib.sha256(packed.read(name)).hexdigest()}  {name}\n" for name in names)
    assert model.describe().digest == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_worker_that_dies_is_replaced(model: LocalModel) -> None:
    """The request fails with the worker's end, the pool keeps its size, the next requests are answered."""
    fault = fault_of(model, ImagePayload("dies", GOOD[0].data + DIES))
    assert (fault.fault, "exit code 3" in str(fault)) == (Fault.WORKER_DIED, True)
    with ThreadPoolExecutor(2) as threads:
        assert len(list(threads.map(lambda _: model.predict(GOOD, 2), range(2)))) == 2


def test_a_handler_that_raises_costs_the_request_only(model: LocalModel) -> None:
    """The fault carries the handler's own words, and its worker lives on."""
    before = {worker.pid for worker in model._workers}  # noqa: SLF001 (a process is not visible from outside)
    fault = fault_of(model, ImagePayload("raises", GOOD[0].data + RAISES))
    assert (fault.fault, "the handler's own fault" in str(fault)) == (Fault.WORKER_DIED, True)
    assert {worker.pid for worker in model._workers} == before  # noqa: SLF001 (a process is not visible from outside)


def test_a_worker_that_hangs_is_ended_and_leaves_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time-out its process and its unpacked archive are gone; so are those of a pool let go of."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pool = LocalModel(archive, "solar-cells", "", workers=1, timeout=1.5)
    pool.predict(GOOD, 2)
    (worker,) = pool._workers  # noqa: SLF001 (a process is not visible from outside)
    hung = worker.pid
    assert len(list(tmp_path.iterdir())) == 1
    assert fault_of(pool, ImagePayload("hangs", GOOD[0].data + HANGS)).fault is Fault.TIMED_OUT
    assert list(tmp_path.iterdir()) == []
    pool.predict(GOOD, 2)
    second = worker.pid
    del pool, worker
    gc.collect()  # the fault's traceback holds the pool
    assert list(tmp_path.iterdir()) == []
    for pid in (hung, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_archive_under_another_name_is_refused(model: LocalModel, archive: Path) -> None:
    """A run is never made with a model that it does not name."""
    assert model.describe().name == "solar-cells"
    other = LocalModel(archive, "other", "2.0", workers=1, timeout=60)
    with pytest.raises(UnknownModelError, match=r"holds solar-cells 1\.0, not other 2\.0"):
        other.describe()
    other.close()


def test_a_file_that_is_no_archive_is_one_line(tmp_path: Path) -> None:
    """The text names the file and what a worker said about it."""
    path = tmp_path / "x.mar"
    path.write_bytes(b"not a zip")
    pool = LocalModel(path, "solar-cells", "", workers=1, timeout=60)
    with pytest.raises(ConfigurationError, match=r"x\.mar: BadZipFile: File is not a zip file"):
        pool.describe()
    pool.close()


def test_the_missing_extra_is_named(
    archive: Path, call: Call, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages' own image has no torch: there the command says what to install."""
    monkeypatch.setattr(pool, "_NEEDED", ("imagebatch_archive", "no_such_package"))
    outcome = call(
        "run", "--run-id", "r", "--input", images, "--backend", "local", "--model-archive", archive
    )
    assert outcome.code == 78
    assert "--backend local needs no_such_package: install the extra, imagebatch[local]" in outcome.err


def test_the_archive_must_be_given(call: Call, images: Path) -> None:
    """Without it, or with a wrong path, nothing is started."""
    outcome = call("run", "--run-id", "r", "--input", images, "--backend", "local")
    assert (outcome.code, "--model-archive, a .mar file: none given" in outcome.err) == (78, True)


def test_cores_follow_the_containers_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are as many as the processors that may be used, not as many as the host has."""
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(pool, "_CGROUP_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    found = []
    for text in ("max 100000\n", "150000 100000\n", "50000 100000\n"):
        quota.write_text(text)
        found.append(pool.cores())
    assert found == [8, 2, 1]


def test_the_workers_time_their_stages(model: LocalModel) -> None:
    """They go on for the time asked; an image that the handler refuses costs no model time."""
    spent = json.loads(model.timed(GOOD, 1))
    assert spent["images"] > len(GOOD)
    assert 0 < spent["model_seconds"] < spent["seconds"] < 2
    assert json.loads(model.timed([ImagePayload("bad", b"no image")], 1))["model_seconds"] == 0


def test_the_in_process_ceiling_is_decoding_and_model_together(archive: Path) -> None:
    """The times of the two parts add up to the time of both, on one core however busy it is."""
    alone = LocalModel(archive, "solar-cells", "", workers=1, timeout=60)
    try:
        found = measure_inprocess(alone, GOOD, 1)
    finally:
        alone.close()
    assert 1 / found.decode.rate + 1 / found.model.rate == pytest.approx(1 / found.both.rate, rel=1e-6)
    assert found.both.rate > 10


def test_the_in_process_ceiling_is_of_all_cores(model: LocalModel) -> None:
    """Both workers count, and neither part alone is slower than both parts."""
    found = measure_inprocess(model, GOOD, 1)
    assert found.both.rate > 20
    assert min(found.decode.rate, found.model.rate) > found.both.rate
