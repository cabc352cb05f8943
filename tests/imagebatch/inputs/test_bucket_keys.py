"""Images in a bucket: every key that a store can hold is listed right, or is one rejected row."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError
from s3fs import S3FileSystem  # type: ignore[import-untyped]  # it ships no types

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.object_store import ObjectStore

KEYS = [
    "a.jpg",
    "/a.jpg",
    "b//c.jpg",
    "b/c.jpg",
    "100%25.jpg",
    "100%.jpg",
    "a b+c&d=e.jpg",
    "what?.jpg",
    "x#1.jpg",
    "*[a].jpg",
    "{1,2}.jpg",
    "back\\slash.jpg",
    "zelle-ü.jpg",
    "tab\tnew\nline.jpg",
    "./dot.jpg",
    "~.jpg",
]
REFUSED = ["a.jpg?versionId=1.jpg", "up/../a.jpg", "b::c.jpg"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with ObjectStore() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # it would go on with the endpoint of an earlier call
        yield running
    S3FileSystem.clear_instance_cache()


def test_every_key_is_listed_or_is_one_rejected_row(call: Call, store: ObjectStore, runs: Path) -> None:
    """Each image is that of its own key, and no key ends the run."""
    store.objects |= {f"photos/in/{key}": jpeg(at) for at, key in enumerate([*KEYS, *REFUSED])}
    outcome = call("preprocess", "--run-id", "r", "--input", "s3://photos/in")
    assert (outcome.last["accepted"], outcome.last["rejected"]) == (len(KEYS), len(REFUSED)), outcome.err
    rows = pq.read_table(runs / "r/manifest/shard-00000.parquet").to_pylist()
    uris = {row["uri"]: row["reason"] for row in rows}
    assert {uri for uri, reason in uris.items() if reason} == {f"s3://photos/in/{key}" for key in REFUSED}
    assert {uri for uri, reason in uris.items() if not reason} == {f"s3://photos/in/{key}" for key in KEYS}
    assert len({row["sha256"] for row in rows if not row["reason"]}) == len(KEYS)


def test_a_list_names_keys(call: Call, store: ObjectStore, runs: Path) -> None:
    """The same keys, named in a list in the bucket, are the same images; s3a:// is s3://."""
    store.objects |= {f"photos/in/{key}": jpeg(at) for at, key in enumerate(KEYS)}
    names = [key for key in KEYS if not key.startswith(("/", ".")) and "\n" not in key]
    store.objects["photos/lists/tonight.txt"] = "".join(f"../in/{name}\n" for name in names).encode()
    options = ("--manifest", "s3a://photos/lists/tonight.txt", "--allowed-roots", "s3://photos")
    outcome = call("preprocess", "--run-id", "r", *options)
    assert (outcome.last["accepted"], outcome.last["rejected"]) == (len(names), 0), outcome.err
    rows = pq.read_table(runs / "r/manifest/shard-00000.parquet").to_pylist()
    assert {row["uri"] for row in rows} == {f"s3a://photos/in/{name}" for name in names}


def test_an_archive_in_a_bucket_is_read_by_ranges(call: Call, store: ObjectStore, runs: Path) -> None:
    """One look at one range for each image; the archive is not fetched again and again."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for at in range(20):
            archive.writestr(f"{at}.jpg", jpeg(at))
    store.objects["photos/x.zip"] = data.getvalue()
    outcome = call("preprocess", "--run-id", "r", "--input", "s3://photos/x.zip")
    assert (outcome.last["accepted"], outcome.last["rejected"]) == (20, 0), outcome.err
    assert store.requests < 40
    uris = pq.read_table(runs / "r/listing.parquet")["uri"].to_pylist()
    store.objects["photos/x.zip"] = data.getvalue()[:1000]
    source = ImageSource(["s3://photos"], 10_000)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(ImageUnavailableError, match="unreadable"):  # one row, and the store is well
        source.read(uris[-1])


def test_a_store_that_is_away_is_not_a_wrong_list(
    call: Call, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """74 and one line, for a list as for a folder; a list that is not there is 78."""
    missing = call("preprocess", "--run-id", "r", "--manifest", "s3://photos/none.csv")
    assert (missing.code, "no such file" in missing.err) == (78, True), missing.err
    store.close()
    monkeypatch.setattr(S3FileSystem, "retries", 1)  # it and its client wait for a store to come back
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    for source in (("--manifest", "s3://photos/x.csv"), ("--input", "s3://photos/x")):
        outcome = call("preprocess", "--run-id", "r", *source)
        assert (outcome.code, "run the same command again" in outcome.err) == (74, True), outcome.err
