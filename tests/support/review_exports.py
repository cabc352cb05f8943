"""What people do with a handed-out folder, and what their tool exports then."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

Judge = Callable[[str], str]
"""The label that a person gives the image of this id; empty: none."""


def label_studio(folder: Path, judge: Judge, *, small: bool = False) -> bytes:
    """The export of a project into which tasks.json was imported: as JSON, or JSON_MIN if `small`."""
    exported = []
    for number, task in enumerate(json.loads((folder / "tasks.json").read_text("utf-8")), 1):
        label = judge(task["data"]["image_id"])
        if small:
            answer = {"label": label} if label else {}
            exported.append(
                {**task["data"], "id": number, "annotator": 7, **answer, "updated_at": "2026-01-31"}
            )
            continue
        result = [
            {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}}
        ]
        early = {
            "id": 1,
            "completed_by": 1,
            "result": result,
            "was_cancelled": True,
            "updated_at": "2026-01-30",
        }
        last = {
            "id": 2,
            "completed_by": {"id": 7, "email": "ann@example.org"},
            "result": result,
            "was_cancelled": False,
            "updated_at": "2026-01-31T08:00:00Z",
        }
        exported.append({**task, "id": number, "annotations": [early, last] if label else []})
    return json.dumps(exported).encode()


def cvat(folder: Path, judge: Judge, ids: dict[str, str]) -> bytes:
    """The export of a CVAT task to which annotations.xml was uploaded.

    Args:
        folder: What was handed out.
        judge: Where its label is the model's, the tag is left as it was.
        ids: Image ids by the names of pictures.
    """
    root = ET.fromstring((folder / "annotations.xml").read_bytes())  # noqa: S314 (our own)
    meta = root.find("meta")
    assert meta is not None
    ET.SubElement(meta, "dumped").text = "2026-01-31 08:00:00+00:00"
    assignee = ET.SubElement(ET.SubElement(meta, "job"), "assignee")
    ET.SubElement(assignee, "username").text = "ann"
    for image in root.iter("image"):
        label = judge(ids[image.get("name", "")])
        tag = image.find("tag")
        if tag is not None and tag.get("label") != label:
            image.remove(tag)
            tag = None
        if label and tag is None:
            ET.SubElement(image, "tag", {"label": label, "source": "manual"})
    return ET.tostring(root, encoding="utf-8")


def table(folder: Path, judge: Judge) -> bytes:
    """queue.csv, filled in with a spreadsheet that saves a byte order mark and semicolons."""
    with (folder / "queue.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    filled = io.StringIO(newline="")
    writer = csv.DictWriter(filled, rows[0].keys(), delimiter=";")
    writer.writeheader()
    writer.writerows({**row, "label": judge(row["image_id"]), "annotator": "ann"} for row in rows)
    return b"\xef\xbb\xbf" + filled.getvalue().encode()
