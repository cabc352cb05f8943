"""A plain CSV to fill in, with a sheet of the pictures to look at."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from imagebatch.contracts.ids import encode_cell
from imagebatch.errors import DataRefusedError, one_line
from imagebatch.review.bundle import PICTURES, Bundle
from imagebatch.review.said import Reading, Said

QUEUE = "queue.csv"
SHEET = "sheet.html"
COLUMNS = ("image_id", "label", "annotator", "predicted", "probability", "why", "picture", "run_id")
_NEEDED = ("image_id", "label")


def write(bundle: Bundle, folder: Path) -> None:
    """Write the CSV, whose column `label` people fill in, and a page with every picture."""
    with (folder / QUEUE).open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(COLUMNS)
        for asked in bundle.asked:
            predicted = asked.predicted
            said = [encode_cell(predicted.label), f"{predicted.probability:.6f}"]
            said = said if bundle.shows_predictions else ["", ""]
            picture = f"{PICTURES}/{asked.name}"
            lines.writerow([predicted.image_id, "", "", *said, asked.why, picture, bundle.run_id])
    environment = Environment(
        loader=PackageLoader("imagebatch.review"),
        autoescape=select_autoescape(["j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("sheet.html.j2").render(bundle=bundle, pictures=PICTURES)
    (folder / SHEET).write_text(page, "utf-8")


def read(data: bytes) -> Reading:
    """Read a CSV with columns `image_id` and `label`; `annotator`, `labelled_at`, `run_id` may be there.

    Raises:
        DataRefusedError: It is none.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataRefusedError("the CSV is not UTF-8: save it as CSV UTF-8") from error
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # some spreadsheets save with another than they were given
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    missing = [name for name in _NEEDED if name not in (rows.fieldnames or [])]
    if missing:
        raise DataRefusedError(f"the CSV has no column {missing[0]}: it has {one_line(header, 120)}")
    reading = Reading()
    for row in rows:
        reading.add(
            Said(
                image_id=(row["image_id"] or "").strip(),
                run_id=(row.get("run_id") or "").strip(),
                label=(row["label"] or "").strip(),
                annotator=(row.get("annotator") or "").strip(),
                when=(row.get("labelled_at") or "").strip(),
            )
        )
    return reading
