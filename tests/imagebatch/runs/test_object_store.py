"""A run's files in a real S3 server: one creator, also where replies are lost; how much is asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.stages.score.attempts import Attempt
from s3fs import S3FileSystem  # type: ignore[import-untyped]  # it ships no types

from tests.support.calls import Call
from tests.support.counting import Counting, by_file, by_kind
from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.support.store_servers import SeaweedFS, StoreServer, running

_SHARDS = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with running("s3", tmp_path_factory.mktemp("store") / "weed") as server:
        assert isinstance(server, SeaweedFS)
        yield server


def use(store: StoreServer, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.environment(endpoint).items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # it would go on with the endpoint of an earlier call


def folder(store: StoreServer, endpoint: str, run_id: str, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    use(store, endpoint, monkeypatch)
    return open_run("s3://runs", run_id)


def test_one_creator(store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second `create` is told that there is such an object, and leaves it as it is."""
    run = folder(store, store.url, "one-creator", monkeypatch)
    assert run.create("a", b"1")
    assert not run.create("a", b"2")
    assert run.read("a") == b"1"


def test_a_lost_reply_is_not_another_creator(store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conditional write whose reply was lost is known as the caller's own when it is repeated."""
    lost: list[int] = []

    def after(asked: Asked, reply: Wrong) -> Wrong:
        if asked.method != "PUT" or lost:
            return reply
        lost.append(asked.number)
        return Wrong(500, b"<Error><Code>InternalError</Code></Error>")

    with Relay(store.url, after=after) as relay:
        attempt = Attempt.claim(folder(store, relay.url, "lost-reply", monkeypatch), 0)
        assert (len(lost), attempt.number) == (1, 1)
        attempt.require_newest()
        assert Attempt.claim(folder(store, store.url, "lost-reply", monkeypatch), 0).number == 2


def test_each_thing_is_asked_once(store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read, to look for, to list and to write a file is one request each, whether it is there or not."""
    counting = Counting()
    with Relay(store.url, before=counting.before) as relay:
        run = folder(store, relay.url, "once", monkeypatch)
        run.write("there", b"1" * 1000)
        run.write("empty", b"")
        assert by_kind(counting.take()) == {"PUT": 2}
        assert (run.exists("there"), run.exists("empty"), run.exists("absent")) == (True, True, False)
        assert run.read("there") == b"1" * 1000
        with run.reading("there") as stream:
            assert stream.read() == b"1" * 1000
        with run.reading("empty") as stream:
            assert stream.read() == b""
        for absent in (run.read, lambda path: run.reading(path).__enter__()):
            with pytest.raises(FileNotFoundError):
                absent("absent")
        assert run.list("") == ["empty", "there"]
        assert run.list("nothing") == []
        found = counting.take()
    assert set(by_file(found).values()) <= {1, 2, 3}
    assert by_kind(found) == {"GET": 8, "LIST": 2}


def test_a_large_file_is_read_in_blocks(store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is larger than what is read at once comes whole, and can be read from anywhere."""
    run = folder(store, store.url, "large", monkeypatch)
    data = bytes(range(256)) * (80 << 10)  # 20 MiB
    run.write("large", data)
    with run.reading("large") as stream:
        assert stream.read(3) == data[:3]
        stream.seek(-5, 2)
        assert stream.read() == data[-5:]
    assert run.read("large") == data


@pytest.mark.timeout(120)
def test_requests_of_a_run(
    call: Call, images: Path, store: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In postprocess and verify no file costs more than two requests; what a shard costs before is held."""
    counting = Counting()
    found: dict[str, Counter[tuple[str, str]]] = {}
    with Relay(store.url, before=counting.before) as relay:
        use(store, relay.url, monkeypatch)
        where = ("--run-id", "r", "--runs-uri", "s3://runs")
        source = ("--input", images, "--limit", _SHARDS, "--shard-size", 1)
        for stage in (("preprocess", *source), ("score",), ("postprocess",), ("verify",)):
            outcome = call(stage[0], *where, *stage[1:])
            assert outcome.code == 0, outcome.err
            found[stage[0]] = counting.take()
    for stage in ("postprocess", "verify"):
        files = by_file(found[stage])
        assert len(files) > 4 * _SHARDS
        assert max(files.values()) <= 2, [name for name, count in files.items() if count > 2]
        assert sum(files.values()) <= 1.2 * len(files)
    assert sum(by_kind(found["preprocess"]).values()) <= 4 * _SHARDS + 20, by_kind(found["preprocess"])
    assert sum(by_kind(found["score"]).values()) <= 12 * _SHARDS + 20, by_kind(found["score"])
