"""The local backend: an archive's digest, and workers that die or hang."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from imagebatch.errors import ConfigurationError, UnknownModelError
from imagebatch.measure import measure_inprocess
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.local import pool
from imagebatch.model_apis.local.pool import LocalModel

from tests.support.calls import Call
from tests.support.handler_archives import DIES, HANGS, RAISES, write_archive
from tests.support.images import jpeg

GOOD = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(5)]


def fault_of(model: LocalModel, image: ImagePayload) -> ApiFaultError:
    with pytest.raises(ApiFaultError) as caught:
        model.predict([GOOD[0], image], 2)
    return caught.value


def test_an_archive_without_features_refuses_to_embed(tmp_path: Path) -> None:
    """It describes no embedding, and who asks all the same is told so in the handler's own words."""
    pool = LocalModel(write_archive(tmp_path, features=False), "solar-cells", "", workers=1, timeout=60)
    assert pool.describe().embedding == 0
    assert len(pool.predict(GOOD, 2).answers) == len(GOOD)
    fault = fault_of(pool, dataclasses.replace(GOOD[1], embed=True))
    assert "graph for openvino gives no features" in str(fault)
    pool.close()


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
    before = {worker.pid for worker in model._pool.all}  # noqa: SLF001 (a process is not visible from outside)
    fault = fault_of(model, ImagePayload("raises", GOOD[0].data + RAISES))
    assert (fault.fault, "the handler's own fault" in str(fault)) == (Fault.WORKER_DIED, True)
    assert {worker.pid for worker in model._pool.all} == before  # noqa: SLF001 (a process is not visible from outside)


def test_a_worker_that_hangs_is_ended_and_leaves_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time-out its process and its unpacked archive are gone; so are those of a pool let go of."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pool = LocalModel(archive, "solar-cells", "", workers=1, timeout=1.5)
    pool.predict(GOOD, 2)
    (worker,) = pool._pool.all  # noqa: SLF001 (a process is not visible from outside)
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
