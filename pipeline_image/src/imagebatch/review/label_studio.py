"""Label Studio: tasks with predictions as it imports them, and its JSON exports read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from imagebatch.errors import DataRefusedError, one_line
from imagebatch.review.bundle import PICTURES, Asked, Bundle
from imagebatch.review.said import Reading, Said

TASKS = "tasks.json"
CONFIG = "label-config.xml"
_FROM, _TO = "label", "image"


def write(bundle: Bundle, folder: Path, image_url: str) -> None:
    """Write the tasks and the project's labelling interface.

    Args:
        bundle: What people are asked about.
        folder: Where to.
        image_url: What stands before `images/NAME` in a task, as Label Studio reaches it.
    """
    tasks = [_task(bundle, asked, image_url) for asked in bundle.asked]
    (folder / TASKS).write_text(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", "utf-8")
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in bundle.labels)
    (folder / CONFIG).write_text(
        f'<View>\n  <Image name="{_TO}" value="$image"/>\n'
        f'  <Choices name="{_FROM}" toName="{_TO}" choice="single" showInLine="true">\n{choices}\n'
        "  </Choices>\n</View>\n",
        "utf-8",
    )


def _task(bundle: Bundle, asked: Asked, image_url: str) -> dict[str, Any]:
    predicted = asked.predicted
    data = {"image": f"{image_url}{PICTURES}/{asked.name}", "image_id": predicted.image_id}
    data |= {"run_id": bundle.run_id, "why": asked.why}
    if not bundle.shows_predictions:
        return {"data": data}
    value = {"choices": [predicted.label]}
    choice = {"from_name": _FROM, "to_name": _TO, "type": "choices", "value": value}
    prediction = {
        "model_version": f"{bundle.model.name} {bundle.model.version}",
        "score": round(predicted.probability, 6),
        "result": [choice],
    }
    return {"data": data, "predictions": [prediction]}


def read(data: bytes) -> Reading:
    """Read an export, JSON or JSON_MIN.

    Raises:
        DataRefusedError: It is none.
    """
    try:
        tasks = json.loads(data)
    except ValueError as error:
        raise DataRefusedError(f"no JSON export of Label Studio: {one_line(error, 200)}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataRefusedError(
            "no JSON export of Label Studio: it is a list of tasks; export as JSON or JSON-MIN"
        )
    reading = Reading()
    for number, task in enumerate(tasks, 1):
        try:
            reading.add(_said(task))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataRefusedError(
                f"no JSON export of this project: task {number} lacks {one_line(error, 80)}"
            ) from error
    return reading


def _said(task: dict[str, Any]) -> Said:
    if "annotations" not in task:  # JSON_MIN: the task's data beside one answer
        return Said(
            image_id=str(task["image_id"]),
            run_id=str(task.get("run_id", "")),
            label=str(task.get(_FROM) or ""),
            annotator=_person(task.get("annotator")),
            when=str(task.get("updated_at") or task.get("created_at") or ""),
        )
    data = task["data"]
    answers = [one for one in task["annotations"] if not one.get("was_cancelled")]
    newest = max(answers, key=_time, default=None)
    return Said(
        image_id=str(data["image_id"]),
        run_id=str(data.get("run_id", "")),
        label=next(_choices(newest), "") if newest else "",
        annotator=_person(newest.get("completed_by")) if newest else "",
        when=_time(newest) if newest else "",
    )


def _choices(annotation: dict[str, Any]) -> Iterator[str]:
    for result in annotation["result"]:
        if result.get("type") == "choices":
            yield from map(str, result["value"]["choices"])


def _time(annotation: dict[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _person(said: Any) -> str:
    if isinstance(said, dict):
        return str(said.get("email") or said.get("username") or said.get("id") or "")
    return "" if said is None else str(said)
