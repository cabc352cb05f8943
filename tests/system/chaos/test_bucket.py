"""A run's files in a real S3 server: one creator, also where replies are lost."""

from collections.abc import Iterator

import pytest
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.stages.score.attempts import Attempt
from s3fs import S3FileSystem  # type: ignore[import-untyped]  # it ships no types

from tests.support import children
from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.system.chaos.bucket import CREDENTIALS, Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    running = Store(tmp_path_factory.mktemp("store") / "weed")
    yield running
    running.close()
    children.end_all()


def folder(endpoint: str, run_id: str, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # it would go on with the endpoint of an earlier call
    return open_run("s3://runs", run_id)


def test_one_creator(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second `create` is told that there is such an object, and leaves it as it is."""
    run = folder(store.s3, "one-creator", monkeypatch)
    assert run.create("a", b"1")
    assert not run.create("a", b"2")
    assert run.read("a") == b"1"


def test_a_lost_reply_is_not_another_creator(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conditional write whose reply was lost is known as the caller's own when it is repeated."""
    lost: list[int] = []

    def after(asked: Asked, reply: Wrong) -> Wrong:
        if asked.method != "PUT" or lost:
            return reply
        lost.append(asked.number)
        return Wrong(500, b"<Error><Code>InternalError</Code></Error>")

    with Relay(store.s3, after=after) as relay:
        attempt = Attempt.claim(folder(relay.url, "lost-reply", monkeypatch), 0)
        assert (len(lost), attempt.number) == (1, 1)
        attempt.require_newest()
        assert Attempt.claim(folder(store.s3, "lost-reply", monkeypatch), 0).number == 2
