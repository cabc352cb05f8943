"""CVAT: tags in the format "CVAT for images 1.1", written as annotations to upload and read back."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

from imagebatch.errors import DataRefusedError, one_line
from imagebatch.review.bundle import Bundle
from imagebatch.review.said import Reading, Said

ANNOTATIONS = "annotations.xml"
LABELS = "labels.json"
PROBABILITY = "probability"
_AUTO = "auto"  # `source` of what no person has drawn


def write(bundle: Bundle, folder: Path) -> None:
    """Write the annotations to upload, and the labels as the constructor of a task takes them."""
    attribute = {"name": PROBABILITY, "mutable": False, "input_type": "text", "values": [""]}
    attributes = [{**attribute, "default_value": ""}] if bundle.shows_predictions else []
    labels = [{"name": label, "type": "tag", "attributes": attributes} for label in bundle.labels]
    (folder / LABELS).write_text(json.dumps(labels, indent=1, ensure_ascii=False) + "\n", "utf-8")
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    _write_meta(root, bundle)
    for number, asked in enumerate(bundle.asked):
        size = {"width": str(asked.width), "height": str(asked.height)}
        image = ET.SubElement(root, "image", {"id": str(number), "name": asked.name, **size})
        if bundle.shows_predictions:
            tag = ET.SubElement(image, "tag", {"label": asked.predicted.label, "source": _AUTO})
            said = ET.SubElement(tag, "attribute", {"name": PROBABILITY})
            said.text = f"{asked.predicted.probability:.6f}"
    ET.indent(root)
    tree = ET.ElementTree(root)
    tree.write(folder / ANNOTATIONS, encoding="utf-8", xml_declaration=True)


def _write_meta(root: ET.Element, bundle: Bundle) -> None:
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    ET.SubElement(task, "name").text = bundle.run_id
    ET.SubElement(task, "size").text = str(len(bundle.asked))
    ET.SubElement(task, "mode").text = "annotation"
    labels = ET.SubElement(task, "labels")
    for name in bundle.labels:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        attributes = ET.SubElement(label, "attributes")
        if bundle.shows_predictions:
            attribute = ET.SubElement(attributes, "attribute")
            ET.SubElement(attribute, "name").text = PROBABILITY
            ET.SubElement(attribute, "mutable").text = "False"
            ET.SubElement(attribute, "input_type").text = "text"
            for empty in ("default_value", "values"):
                ET.SubElement(attribute, empty)


def read(data: bytes) -> Reading:
    """Read an export in the format "CVAT for images 1.1".

    Raises:
        DataRefusedError: It is none.
    """
    try:
        # Entities from outside are never read.
        root = ET.parse(io.BytesIO(data)).getroot()  # noqa: S314 (expat bounds what entities grow to)
    except ET.ParseError as error:
        raise DataRefusedError(
            f"no annotations of CVAT: {one_line(error, 200)}; export as CVAT for images 1.1 and unpack it"
        ) from error
    if root.tag != "annotations":
        raise DataRefusedError(f"no annotations of CVAT: <{one_line(root.tag, 40)}>, not <annotations>")
    when = (root.findtext("meta/dumped") or "").strip()
    annotator = next(filter(None, map(root.findtext, _PEOPLE)), "").strip()
    reading = Reading()
    for image in root.iter("image"):
        tags = image.findall("tag")
        # A person's tag beside the model's own, which was left where it was, is a correction.
        tag = next((one for one in tags if one.get("source") != _AUTO), tags[0] if tags else None)
        reading.add(
            Said(
                picture=image.get("name", ""),
                label="" if tag is None else tag.get("label", ""),
                annotator=annotator,
                when=when,
                untouched=tag is not None and tag.get("source") == _AUTO,
            )
        )
    return reading


# Who labels a job stands nearest to what was done; a task's owner has only handed it out.
_PEOPLE = ("meta/job/assignee/username", "meta/task/assignee/username")
