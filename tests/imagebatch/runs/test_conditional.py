"""A store that does not keep conditional writes is found out before a run claims anything in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from imagebatch.errors import ConfigurationError
from imagebatch.runs.folder import RunFolder, open_run
from s3fs import S3FileSystem  # type: ignore[import-untyped]  # it ships no types

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.object_store import ObjectStore

Use = Callable[[ObjectStore], RunFolder]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    def chosen(store: ObjectStore) -> RunFolder:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # it would go on with the endpoint of an earlier call
        return open_run("s3://runs", "r")

    yield chosen
    S3FileSystem.clear_instance_cache()


def test_a_store_that_keeps_them_is_taken(use: Use) -> None:
    """The probe leaves nothing behind, and is made once."""
    with ObjectStore() as store:
        run = use(store)
        assert run.create("a", b"1")
        assert not run.create("a", b"2")
        assert set(store.objects) == {"runs/r/a"}
        before = store.requests
        assert run.create("b", b"1")
        assert store.requests == before + 1


@pytest.mark.parametrize("conditional", [False, None])
def test_a_store_that_does_not_is_refused(use: Use, *, conditional: bool | None) -> None:
    """Ignored or unknown: 78 before anything is claimed, and no object stays."""
    with ObjectStore(conditional=conditional) as store:
        run = use(store)
        with pytest.raises(ConfigurationError, match="does not keep conditional writes"):
            run.create("a", b"1")
        assert store.objects == {}


def test_no_run_begins_there(use: Use, call: Call, tmp_path: Path) -> None:
    """On the command line, with what to do, and with nothing written that a second input could overwrite."""
    (tmp_path / "x.jpg").write_bytes(jpeg(1))
    with ObjectStore(conditional=False) as store:
        use(store)
        outcome = call("preprocess", "--run-id", "r", "--input", tmp_path, "--runs-uri", "s3://runs")
        assert (outcome.code, "keep runs on a disk, or in a store that does" in outcome.err) == (78, True)
        assert [name for name in store.objects if "telemetry" not in name] == []
