"""Images on web servers: only what a root names, redirects included."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagebatch.contracts.records import Reason
from imagebatch.errors import StorageError
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError

from tests.support.calls import Call
from tests.support.images import jpeg
from tests.support.web_server import WebServer


@pytest.fixture
def web() -> Iterator[WebServer]:
    running = WebServer()
    running.files = {"/pub/a.jpg": b"a", "/secret.jpg": b"secret", "/public/b.jpg": b"b"}
    yield running
    running.close()


@pytest.fixture
def source(web: WebServer) -> ImageSource:
    """Reads below /pub, images of at most 1,000 bytes."""
    return ImageSource([f"{web.url}/pub"], 1000)


def refusal(source: ImageSource, url: str) -> ImageUnavailableError:
    with pytest.raises(ImageUnavailableError) as caught:
        source.read(url)
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "{web}/secret.jpg",
        "{web}/public/b.jpg",
        "{web}/pub/../secret.jpg",
        "{web}/pub/%2e%2e/secret.jpg",
        "{web}/pub/..%5csecret.jpg",
        "http://user@127.0.0.1:{port}/pub/a.jpg",
        "http://localhost:{port}/pub/a.jpg",
        "http://127.0.0.1/pub/a.jpg",
        "https://127.0.0.1:{port}/pub/a.jpg",
        "http://[::1:{port}/pub/a.jpg",
    ],
)
def test_nothing_else_is_asked_for(web: WebServer, source: ImageSource, url: str) -> None:
    """Another path, host, port or scheme than the root's is refused before a request is made."""
    where = url.format(web=web.url, port=web.port)
    assert refusal(source, where).reason is Reason.OUTSIDE_ALLOWED_ROOTS
    assert not source.allows(where)
    assert not web.asked


def test_redirects_are_held_to_the_roots(web: WebServer, source: ImageSource) -> None:
    """One that stays below the root is followed; one that leaves it is not, to whatever place."""
    web.redirects = {
        "/pub/moved.jpg": "a.jpg",
        "/pub/out.jpg": "/secret.jpg",
        "/pub/away.jpg": "http://169.254.169.254/latest/meta-data",
        "/pub/file.jpg": "file:///etc/passwd",
        "/pub/loop.jpg": "/pub/loop.jpg",
    }
    assert source.read(f"{web.url}/pub/moved.jpg") == b"a"
    for name in ("out", "away", "file"):
        refused = refusal(source, f"{web.url}/pub/{name}.jpg")
        assert (refused.reason, "redirected to" in refused.detail) == (Reason.OUTSIDE_ALLOWED_ROOTS, True)
    assert refusal(source, f"{web.url}/pub/loop.jpg").reason is Reason.UNREADABLE
    assert web.asked["/secret.jpg"] == 0


def test_a_name_that_leads_to_a_private_address(web: WebServer) -> None:
    """It is refused after connecting and before anything is sent, while an address that is named is asked."""
    url = f"http://127.1:{web.port}/pub"  # as any name, it says nothing of the address that it resolves to
    refused = refusal(ImageSource([url], 10), f"{url}/a.jpg")
    assert refused.reason is Reason.OUTSIDE_ALLOWED_ROOTS
    assert "127.1 leads to the private address 127.0.0.1" in refused.detail
    assert not web.asked
    assert (
        ImageSource([f"http://localhost:{web.port}/"], 10).read(f"http://localhost:{web.port}/pub/a.jpg")
        == b"a"
    )


def test_answers_become_reasons(web: WebServer, source: ImageSource) -> None:
    """Each refusal of one image costs one row; a larger file is not read to its end."""
    web.files["/pub/large.jpg"] = b"x" * 100_000
    web.statuses = {"/pub/locked.jpg": [403], "/pub/gone.jpg": [410], "/pub/broken.jpg": [500]}
    wanted = {
        "large": Reason.TOO_MANY_BYTES,
        "locked": Reason.UNREADABLE,
        "gone": Reason.NOT_FOUND,
        "missing": Reason.NOT_FOUND,
        "broken": Reason.UNREADABLE,
    }
    assert {name: refusal(source, f"{web.url}/pub/{name}.jpg").reason for name in wanted} == wanted


def test_a_server_in_trouble_is_asked_again(web: WebServer, source: ImageSource) -> None:
    """Passing trouble leaves no trace; one that stays is the storage's failure and not the image's."""
    web.statuses = {"/pub/a.jpg": [503, 502], "/pub/b.jpg": [503]}
    assert source.read(f"{web.url}/pub/a.jpg") == b"a"
    with pytest.raises(StorageError, match="HTTP 503; run the same command again"):
        source.read(f"{web.url}/pub/b.jpg")
    web.close()
    with pytest.raises(StorageError, match="run the same command again"):
        source.read(f"{web.url}/pub/a.jpg")


def test_a_manifest_of_urls(call: Call, runs: Path, tmp_path: Path, web: WebServer) -> None:
    """With the server among the roots its images are scored; without, each row is rejected and none asked."""
    images = {f"/pub/{seed}.jpg": jpeg(seed) for seed in range(20)}
    web.files |= images
    manifest = tmp_path / "urls.csv"
    manifest.write_text(
        "uri\n" + "".join(f"{web.url}{path}\n" for path in images) + f"{web.url}/secret.jpg\n"
    )
    refused = call("preprocess", "--run-id", "off", "--manifest", manifest)
    assert (refused.last["accepted"], refused.last["rejected"]) == (0, 21)
    assert not web.asked
    roots = f"{tmp_path},{web.url}/pub/"
    outcome = call(
        "run", "--run-id", "on", "--manifest", manifest, "--allowed-roots", roots, "--max-failures", 1
    )
    assert (outcome.code, outcome.last["predicted"], outcome.last["rejected"]) == (0, 20, 1)
    lines = (runs / "on/output/predictions.csv").read_text().splitlines()[1:]
    digests = {line.split(",")[1] for line in lines}
    assert digests == {hashlib.sha256(data).hexdigest() for data in images.values()}


def test_no_signature_is_shown(call: Call, runs: Path, tmp_path: Path, web: WebServer) -> None:
    """Whoever reads a table, a report or a log cannot read what a signed address in the list opens."""
    signed, manifest = "?X-Amz-Signature=5ec4e7", tmp_path / "urls.csv"
    names = ["gone", "broken", "away", "far"]
    web.files |= {f"/pub/{seed}.jpg{signed}": jpeg(seed) for seed in range(4)}
    web.files[f"/pub/broken.jpg{signed}"] = b"no image"
    web.redirects[f"/pub/away.jpg{signed}"] = f"{web.url}/secret.jpg{signed}"
    web.redirects[f"/pub/far.jpg{signed}"] = f"/pub/0.jpg{signed}"
    rows = [f"{web.url}/pub/{name}.jpg{signed}\n" for name in (*range(4), *names)]
    manifest.write_text("uri\n" + "".join(rows))
    asked = ("--manifest", manifest, "--allowed-roots", f"{tmp_path},{web.url}/pub/")
    outcome = call("run", "--run-id", "r", *asked, "--max-failures", 3)
    assert (outcome.code, outcome.last["predicted"], outcome.last["rejected"]) == (0, 5, 3)
    failures = (runs / "r/output/failures.csv").read_text()
    assert f"{web.url}/pub/away.jpg,{web.url}/pub/away.jpg,preprocess,outside_allowed_roots" in failures
    web.close()
    down = call("preprocess", "--run-id", "down", *asked)
    assert (down.code, f"cannot read {web.url}/pub/" in down.err) == (74, True)
    assert "5ec4e7" not in outcome.out + outcome.err + down.out + down.err
    kept = {path.name for path in runs.rglob("*") if path.is_file() and b"5ec4e7" in path.read_bytes()}
    assert all(name.endswith(".parquet") for name in kept), kept
    assert "5ec4e7" not in (runs / "r/output/report.html").read_text()


@pytest.mark.parametrize("kind", ["--input", "--manifest"])
def test_a_web_server_cannot_be_listed(call: Call, kind: str) -> None:
    """One line, 78, before anything is asked for."""
    outcome = call("preprocess", "--run-id", "r", kind, "https://images.example.com/all")
    assert (outcome.code, "name a web server's images in a local --manifest" in outcome.err) == (78, True)
