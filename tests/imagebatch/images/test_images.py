"""Looking at images: statistics, checks, thumbnails, and what hostile files can do."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from imagebatch.images.checks import findings, suspects
from imagebatch.images.decoders import Decoders
from imagebatch.images.measure import measure, preview, thumbnail
from imagebatch.images.sample import SAMPLE_SCHEMA
from PIL import Image, ImageFilter

from tests.support.calls import Call
from tests.support.images import encoded, jpeg, photograph
from tests.support.model_server import ModelServer


def sample(files: dict[str, bytes]) -> pa.Table:
    rows = [{"image_id": name, "uri": name, "sha256": name} | measure(data) for name, data in files.items()]
    return pa.Table.from_pylist(rows, SAMPLE_SCHEMA)


def test_every_planted_flaw_is_named_and_good_images_are_not() -> None:
    """Proves that each check finds its flaw in a sample of otherwise good photographs."""
    good = {f"good-{seed}": encoded(photograph(seed)) for seed in range(30)}
    first = photograph(0)
    planted = {
        "blank": encoded(Image.new("RGB", (300, 300), (90, 90, 90))),
        "too_dark": encoded(first.point(lambda value: value // 20)),
        "blurred": encoded(first.filter(ImageFilter.GaussianBlur(30))),
        "undecodable": encoded(first)[:5000],
        "wrong_mode": encoded(photograph(99).convert("CMYK"), "TIFF"),
        "near_duplicate": encoded(first, "JPEG"),
    }
    found = findings(sample(good | planted))
    assert {row["image_id"] for row in found if row["image_id"].startswith("good")} == set()
    assert all((name, name) in {(row["image_id"], row["check"]) for row in found} for name in planted)
    assert suspects(found) == 4


@pytest.mark.parametrize(
    ("change", "figure", "less"),
    [
        (lambda image: image.point(lambda value: value * 0.8), "brightness", True),
        (lambda image: image.filter(ImageFilter.GaussianBlur(2)), "sharpness", True),
        (lambda image: image.point(lambda value: 128 + (value - 128) * 1.3), "contrast", False),
    ],
)
def test_statistics_move_the_way_the_image_does(change, figure, less) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 (parameters of the table above)
    """Proves that darker is darker, blurred less sharp, and more contrast more."""
    before, after = (measure(encoded(image))[figure] for image in (photograph(3), change(photograph(3))))
    assert (after < before) is less


def test_a_photograph_of_any_size_has_the_same_sharpness() -> None:
    """Proves that statistics are made at one scale: four times the pixels change sharpness by little."""
    small, large = (
        measure(encoded(photograph(5).resize(size)))["sharpness"] for size in ((320, 260), (1280, 1040))
    )
    assert small == pytest.approx(large, abs=0.25)


def test_thumbnails_are_small_and_carry_no_metadata() -> None:
    """Proves that a large image becomes 112 pixels and a few kilobytes, or 1,024, without its EXIF."""
    image = photograph(1, (3000, 2000))
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    small = thumbnail(stream.getvalue())
    with Image.open(io.BytesIO(small)) as shown:
        assert max(shown.size) == 112
    assert len(small) < 8000
    large = preview(stream.getvalue())
    with Image.open(io.BytesIO(large)) as shown:
        assert shown.size == (1024, 683)
    assert b"secret" not in small + large


def test_hostile_files_cost_their_own_row_only() -> None:
    """Proves that bombs, garbage and a killed worker leave the other images measured."""
    bomb = encoded(Image.new("1", (30_000, 30_000)))
    with Decoders() as decoders:
        assert "too_many_pixels" in decoders.measure(bomb)["problem"]
        assert decoders.thumbnail(bomb) == decoders.preview(bomb) == b""
        assert "problem" in decoders.measure(b"\x89PNG\r\n\x1a\n" + bytes(500))
        worker = decoders._all[-1]  # noqa: SLF001 (the process that has just answered)
        assert worker._process is not None  # noqa: SLF001 (the process that has just answered)
        worker._process.kill()  # noqa: SLF001 (as a decoder's crash would)
        worker._process.wait()  # noqa: SLF001 (until the crash has happened)
        assert "crashed" in decoders.measure(jpeg(1))["problem"]
        assert decoders.measure(jpeg(1))["mode"] == "RGB"


def test_busy_cores_are_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that there is a worker per free core, at most four, and never none."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(3)))
    for spared, size in ((0, 3), (1, 2), (3, 1)):
        with Decoders(spared) as decoders:
            assert decoders.size == size
            assert decoders.measure(jpeg(1))["mode"] == "RGB"


def test_the_suite_images_warns_and_refuses_where_a_limit_is_set(
    call: Call, images: Path, runs: Path
) -> None:
    """Proves that suspect images warn by default, refuse the run with a limit, and are kept in the run."""
    for number in range(3):
        (images / f"blank-{number}.png").write_bytes(encoded(Image.new("L", (64, 64), 10 * number)))
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    assert call("check", "--suite", "images", "--run-id", "r").code == 0
    refused = call("check", "--suite", "images", "--run-id", "r", "--max-suspect-images", "2")
    assert refused.code == 65
    assert "3 of 43 images looked at are suspect" in refused.err
    kept = json.loads((runs / "r/quality/images.json").read_text())
    assert {row["image_id"] for row in kept["findings"] if row["check"] == "blank"} == {
        f"blank-{number}.png" for number in range(3)
    }


def test_what_the_model_declares_holds_for_header_and_check(
    call: Call, server: ModelServer, tmp_path: Path, runs: Path
) -> None:
    """Proves that a model's page and value range reach preprocess, run.json and the check."""
    folder = tmp_path / "scans"
    folder.mkdir()
    wide = np.asarray(photograph(3, (80, 60)).convert("L")).astype(np.uint16) << 4
    pages = [Image.fromarray(wide), Image.fromarray(wide)]
    for number in range(3):
        pages[0].save(folder / f"{number}.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "single.tif")
    server.input |= {"page": 2, "value_range": "12-bit"}
    assert call("preprocess", "--run-id", "r", "--input", folder, "--max-failures", "2").code == 0
    declared = json.loads((runs / "r/run.json").read_text())["model"]["view"]
    assert declared == {"page": 2, "value_range": "12-bit"}
    rejected = pa.parquet.read_table(runs / "r/rejects/shard-00000.parquet").to_pylist()
    assert [(row["image_id"], row["reason"]) for row in rejected] == [("single.tif", "decode_failed")]
    assert call("check", "--suite", "images", "--run-id", "r").code == 0
    assert "low_depth" not in (runs / "r/quality/images.json").read_text()
    server.input = {"crop": 224}
    assert call("preprocess", "--run-id", "plain", "--input", folder).code == 0
    assert "view" not in json.loads((runs / "plain/run.json").read_text())["model"]
    assert call("check", "--suite", "images", "--run-id", "plain").code == 0
    kept = json.loads((runs / "plain/quality/images.json").read_text())
    assert sum(row["check"] == "low_depth" for row in kept["findings"]) == 4
    server.input = {"value_range": "13 and a half"}
    refused = call("preprocess", "--run-id", "newer", "--input", folder)
    assert refused.code == 78
    assert "value_range must be" in refused.err


def test_the_sample_is_the_same_for_the_same_run_id(call: Call, images: Path, runs: Path) -> None:
    """Proves that the choice of images hangs on the run id alone."""
    chosen = []
    for place in ("one", "two"):
        runs_uri = ("--runs-uri", runs / place)
        assert call("preprocess", "--run-id", "r", "--input", images, *runs_uri).code == 0
        assert call("check", "--suite", "images", "--run-id", "r", "--image-sample", 7, *runs_uri).code == 0
        table = pa.parquet.read_table(runs / place / "r/quality/images.parquet")
        chosen.append(table["image_id"].to_pylist())
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 7
