"""`--pages all`: each page of a file is an image of its own, from the listing to the certificate."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import imagecodecs  # type: ignore[import-untyped]  # ships no type marker
import numpy as np
import pyarrow.parquet as pq
import pytest
from imagebatch.images.checks import findings
from imagebatch.images.decoders import Decoders
from imagebatch.images.sample import measured_sample
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import open_run
from imagebatch.stages.preprocess import stage
from imagebatch_header import View
from imagebatch_picture import read
from PIL import Image
from pillow_heif import from_pillow  # type: ignore[import-untyped]  # ships no type marker

from tests.support.calls import Call, scored
from tests.support.handler_archives import write_archive
from tests.support.images import encoded, jpeg, photograph
from tests.support.model_server import Images, ModelServer

KINDS = {
    "TIFF": "tif",
    "GIF": "gif",
    "WEBP": "webp",
    "PNG": "png",
    "AVIF": "avif",
    "MPO": "jpg",
    "HEIF": "heic",
}
ALL = ("--pages", "all")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive"))


def picture(number: int) -> Image.Image:
    """A picture that no other number gives, in another tone."""
    pixels = np.asarray(photograph(number, (96, 80)), int)
    return Image.fromarray(
        (pixels // 4 + np.array([60 * number, 20 * number, 180 - 60 * number])).astype(np.uint8)
    )


def pages_of(kind: str, pages: list[Image.Image]) -> bytes:
    stream = io.BytesIO()
    if kind == "HEIF":
        file = from_pillow(pages[0])
        for page in pages[1:]:
            file.add_from_pillow(page)
        file.save(stream, quality=90)
    else:
        options = {"lossless": True} if kind == "WEBP" else {}
        pages[0].save(stream, kind, save_all=True, append_images=pages[1:], **options)
    return stream.getvalue()


def tiff(*numbers: int) -> bytes:
    return pages_of("TIFF", [picture(number) for number in numbers])


def predictions(runs: Path, run_id: str = "r") -> dict[str, list[str]]:
    with (runs / run_id / "output/predictions.csv").open(newline="") as stream:
        return {row[0]: row[1:] for row in csv.reader(stream)}


def failures(runs: Path, run_id: str = "r") -> dict[str, tuple[str, str]]:
    with (runs / run_id / "output/failures.csv").open(newline="") as stream:
        return {row["image_id"]: (row["reason"], row["detail"]) for row in csv.DictReader(stream)}


@pytest.fixture(autouse=True)
def looking(server: ModelServer) -> None:
    server.looks_at_pages = True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of twelve pages among two of one."""
    found = tmp_path / "images"
    found.mkdir()
    (found / "a.jpg").write_bytes(jpeg(1))
    (found / "scan.tif").write_bytes(tiff(*range(12)))
    (found / "z.jpg").write_bytes(jpeg(2))
    return found


def test_each_page_is_answered_as_if_it_were_saved_alone(
    call: Call, tmp_path: Path, runs: Path, archive: Path
) -> None:
    """Of every format with pages: the archive's own handler sees each; one that is cut off fails alone."""
    folder = tmp_path / "images"
    folder.mkdir()
    shown = [picture(number) for number in range(3)]
    for kind, suffix in KINDS.items():
        data = pages_of(kind, shown)
        (folder / f"scan.{suffix}").write_bytes(data)
        for page in (1, 2, 3):
            (folder / f"scan.{suffix}-{page}.png").write_bytes(encoded(seen(data, page)))
    cut = tiff(0, 1, 2)
    (folder / "cut.tif").write_bytes(cut[: len(cut) * 9 // 10])
    local = ("--backend", "local", "--model-archive", archive, "--local-workers", 1)
    options = (*ALL, "--max-failures", 1, *local)
    assert call("preprocess", "--run-id", "r", "--input", folder, *options).last["rejected"] == 0
    assert call("score", "--run-id", "r", *local[2:]).code == 0
    assert call("postprocess", "--run-id", "r").last["predicted"] == 6 * len(KINDS) + 2
    assert call("verify", "--run-id", "r").code == 0
    found = predictions(runs)
    for suffix in KINDS.values():
        answers = [found[f"scan.{suffix}#page={page}"][1:] for page in (1, 2, 3)]
        assert answers == [found[f"scan.{suffix}-{page}.png"][1:] for page in (1, 2, 3)]
        assert len({tuple(answer) for answer in answers}) == 3
    ((name, (reason, _)),) = failures(runs).items()
    assert (name, reason) == ("cut.tif#page=3", "truncated")


def seen(data: bytes, page: int) -> Image.Image:
    """What a page's pixels are, to be saved without loss."""
    pixels = read(data, view=View(page=page)).pixels
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])


def test_the_account_is_of_pages(call: Call, folder: Path, runs: Path) -> None:
    """Listing, manifest, certificate and limit count pages, and every page has the SHA-256 of its file."""
    outcome = scored(call, "r", folder, *ALL, "--shard-size", 5)
    assert (outcome.code, outcome.last["listed"], outcome.last["predicted"]) == (0, 14, 14)
    found = predictions(runs)
    pages = {f"scan.tif#page={page}" for page in range(1, 13)}
    assert found.keys() == {"image_id", "a.jpg", "z.jpg"} | pages
    assert len({found[name][0] for name in pages}) == 1
    assert len({tuple(found[name]) for name in pages}) == 12
    assert call("verify", "--run-id", "r").code == 0
    limited = scored(call, "few", folder, *ALL, "--limit", 3)
    assert limited.last["listed"] == 3
    assert limited.last["left_out"] == {"beyond_limit": {".tif": 10, ".jpg": 1}}


def test_a_name_that_looks_like_a_pages_is_another(call: Call, tmp_path: Path, runs: Path) -> None:
    """Ids stay unique, whatever files are called."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "scan.tif").write_bytes(tiff(0, 1))
    (folder / "scan.tif#page=1").write_bytes(jpeg(1))
    (folder / "scan.tif%23page=1").write_bytes(jpeg(2))
    assert scored(call, "r", folder, *ALL, "--include", "*").code == 0
    names = {"scan.tif#page=1", "scan.tif#page=2", "scan.tif%23page=1", "scan.tif%2523page=1"}
    assert predictions(runs).keys() == {"image_id"} | names


def test_pages_of_an_archive_and_of_a_list(call: Call, folder: Path, tmp_path: Path, runs: Path) -> None:
    """Members have pages, too; what a list says of a file stands beside each of its pages."""
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(folder / "scan.tif", "d/scan.tif")
        archive.write(folder / "a.jpg", "a.jpg")
    assert scored(call, "archive", tmp_path / "in.zip", *ALL).last["predicted"] == 13
    assert "d/scan.tif#page=12" in predictions(runs, "archive")
    listed = "uri,image_id,site\nimages/scan.tif,x,Hall\nimages/a.jpg,y#page=2,Yard\n"
    (tmp_path / "list.csv").write_text(listed)
    asked = ("--run-id", "list", "--manifest", tmp_path / "list.csv", "--carry", "site")
    assert call("preprocess", *asked, *ALL).last["listed"] == 13
    assert call("score", "--run-id", "list").code == 0
    assert call("postprocess", "--run-id", "list").code == 0
    found = {name: row[-1] for name, row in predictions(runs, "list").items() if name != "image_id"}
    assert found == {f"x#page={page}": "Hall" for page in range(1, 13)} | {"y%23page=2": "Yard"}
    assert call("verify", "--run-id", "list").code == 0


def test_a_page_that_cannot_be_seen_is_a_row_of_its_own(call: Call, tmp_path: Path, runs: Path) -> None:
    """Broken, cut off or too large: the other pages of the file are answered."""
    folder = tmp_path / "images"
    folder.mkdir()
    large = pages_of("TIFF", [picture(0), photograph(1, (400, 300)), picture(2)])
    (folder / "large.tif").write_bytes(large)
    cut = tiff(0, 1, 2)
    (folder / "cut.tif").write_bytes(cut[: len(cut) * 6 // 10])
    (folder / "gone.webp").write_bytes(pages_of("WEBP", [picture(0), picture(1)])[:-40])
    options = (*ALL, "--max-image-pixels", 96 * 80, "--max-failures", "90%")
    assert scored(call, "r", folder, *options).code == 0
    refused = failures(runs)
    assert refused["large.tif#page=2"] == (
        "too_many_pixels",
        "400 x 300 pixels, at most 7680 are accepted; see --max-image-pixels",
    )
    assert refused["cut.tif#page=3"] == ("truncated", "the file ends before the directory of page 3")
    assert refused["gone.webp"][0] == "truncated"
    assert refused.keys() == {"large.tif#page=2", "cut.tif#page=3", "gone.webp"}
    assert {"large.tif#page=1", "large.tif#page=3", "cut.tif#page=1"} <= predictions(runs).keys()
    assert call("verify", "--run-id", "r").code == 0


def test_too_many_pages_are_refused_and_told(call: Call, folder: Path, runs: Path) -> None:
    """The file is one row; the setting is named. So is a file whose pages nobody can count."""
    frames = np.stack([np.asarray(picture(number)) for number in range(2)])
    (folder / "moving.jxl").write_bytes(imagecodecs.jpegxl_encode(frames, lossless=True))
    assert scored(call, "r", folder, *ALL, "--max-pages", 11, "--max-failures", 2).code == 0
    refused = failures(runs)
    assert refused["scan.tif"] == (
        "too_many_pages",
        "12 pages or frames, at most 11 are taken; see --max-pages",
    )
    assert refused["moving.jxl"][0] == "unsupported_format"
    assert "how many frames" in refused["moving.jxl"][1]


@pytest.mark.parametrize("pages", [2, 13])
def test_a_file_that_gains_or_loses_pages_is_told(
    call: Call, folder: Path, runs: Path, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing and the look at it: no page that came later is passed over in silence."""
    whole = stage._inspect_all  # noqa: SLF001 (the moment between the two)

    def changed(*arguments: object) -> object:
        (folder / "scan.tif").write_bytes(tiff(*range(pages)))
        return whole(*arguments)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(stage, "_inspect_all", changed)
    assert scored(call, "r", folder, *ALL, "--max-failures", "90%").code == 0
    refused = failures(runs)
    assert len(refused) == 12
    said = f"{pages} pages or frames, and 12 when it was listed: begin another run"
    assert set(refused.values()) == {("content_changed", said)}


def test_an_api_that_takes_whole_files_is_refused(
    call: Call, folder: Path, runs: Path, server: ModelServer
) -> None:
    """Code 78 before anything is listed: a handler that does not know the header would look at page 1."""
    server.looks_at_pages = False
    outcome = call("preprocess", "--run-id", "r", "--input", folder, *ALL)
    assert outcome.code == 78
    assert "--pages all: solar-cells 1.0" in outcome.err
    assert "make the archive again" in outcome.err
    assert not (runs / "r/listing.parquet").exists()


def test_an_answer_about_another_page_is_no_answer(call: Call, folder: Path, server: ModelServer) -> None:
    """It must say which page it is about."""

    def forget(reply: dict[str, object]) -> bytes:
        images = [{key: value for key, value in entry.items() if key != "page"} for entry in reply["images"]]  # type: ignore[attr-defined]  # a list
        return json.dumps(reply | {"images": images}).encode()

    server.tamper = forget
    assert call("preprocess", "--run-id", "r", "--input", folder, *ALL, "--max-failures", 0).code == 0
    outcome = call("score", "--run-id", "r")
    assert outcome.code in {65, 69}
    assert "other pages" in outcome.err


def test_a_killed_attempt_loses_no_page(call: Call, folder: Path, runs: Path, server: ModelServer) -> None:
    """What the first process kept of some pages is taken over, each for its own page."""
    assert call("preprocess", "--run-id", "r", "--input", folder, *ALL).code == 0
    command = [sys.executable, "-m", "imagebatch", "score", "--run-id", "r"]
    scorer = subprocess.Popen([*command, "--pack-size", "1", "--in-flight", "1"])

    def kill_at_the_sixth(number: int, _images: Images) -> None:
        if number == 6:
            scorer.kill()

    server.faults = kill_at_the_sixth
    assert scorer.wait(60) == -signal.SIGKILL
    server.faults = lambda _number, _images: None
    before = server.requests
    assert call("score", "--run-id", "r", "--pack-size", 1).last["resumed"] == 5
    assert server.requests - before == 9
    assert call("postprocess", "--run-id", "r").code == 0
    assert scored(call, "calm", folder, *ALL).code == 0
    assert predictions(runs) == predictions(runs, "calm")


def test_the_cache_keeps_pages_apart(
    call: Call, folder: Path, tmp_path: Path, runs: Path, server: ModelServer
) -> None:
    """A second run asks about nothing; what the model's own page is, a run over files knows, too."""
    kept = ("--cache", tmp_path / "cache")
    assert scored(call, "first", folder, *ALL, asked=kept).code == 0
    asked = len(server.images)
    assert asked == 14
    assert scored(call, "again", folder, *ALL, asked=kept).code == 0
    assert scored(call, "files", folder, asked=kept).code == 0
    assert len(server.images) == asked
    assert predictions(runs, "first") == predictions(runs, "again")
    assert predictions(runs, "files")["scan.tif"] == predictions(runs, "again")["scan.tif#page=1"]


def test_a_redrive_asks_about_the_page(call: Call, folder: Path) -> None:
    """A page that is mended gets its answer in the same run."""
    whole = (folder / "scan.tif").read_bytes()
    (folder / "scan.tif").write_bytes(tiff(0, 1, 2)[: len(tiff(0, 1, 2)) * 6 // 10])
    assert scored(call, "r", folder, *ALL, "--max-failures", 1).last["rejected"] == 1
    (folder / "scan.tif").write_bytes(tiff(0, 1, 2))
    outcome = call("redrive", "--run-id", "r")
    assert (outcome.code, outcome.last["predicted"]) == (0, 5)
    (folder / "scan.tif").write_bytes(whole)
    assert call("verify", "--run-id", "r").code == 0


def test_checks_and_thumbnails_see_the_page(call: Call, tmp_path: Path, runs: Path) -> None:
    """A black page is found by its own name, and two pages of one file are no copies of each other."""
    folder = tmp_path / "images"
    folder.mkdir()
    black = Image.new("RGB", (96, 80))
    (folder / "scan.tif").write_bytes(pages_of("TIFF", [picture(0), black, picture(0)]))
    assert scored(call, "r", folder, *ALL).code == 0
    run = open_run(str(runs), "r")
    with Decoders() as decoders:
        sample = measured_sample(run, read_description(run), 0, decoders)
    found = {(row["image_id"], row["check"]): row["detail"] for row in findings(sample)}
    assert ("scan.tif#page=2", "too_dark") in found
    assert found["scan.tif#page=3", "near_duplicate"] == "looks like scan.tif#page=1"
    assert call("report", "--run-id", "r").code == 0
    page = (runs / "r/output/report.html").read_text()
    assert (
        "1 of the files hold several pages or frames, 3 in all: each was seen as an image of its own" in page
    )


def test_files_are_images_unless_asked(call: Call, folder: Path, runs: Path) -> None:
    """By default nothing of a run's files is other than before: no column, no key, no header."""
    assert scored(call, "r", folder).last["listed"] == 3
    assert pq.read_schema(runs / "r/listing.parquet").names == ["image_id", "uri"]
    assert "page" not in pq.read_schema(runs / "r/manifest/shard-00000.parquet").names
    assert not {"pages", "max_pages"} & json.loads((runs / "r/run.json").read_bytes()).keys()
    assert call("preprocess", "--run-id", "r", "--input", folder, *ALL).code == 78
