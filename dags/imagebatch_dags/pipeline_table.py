"""Print the keys of a pipeline's file as Markdown: the generated part of docs/how-to/pipelines.md.

`python -m imagebatch_dags.pipeline_table` does; `make docs` puts it into the page.
"""

from dataclasses import MISSING
from typing import Any

from imagebatch_dags.options import Option, kind_of, option_of
from imagebatch_dags.pipeline import ALLOWANCE, OPTIONS, SOURCES

HEAD = "| key | value | default | field of the form | meaning |\n|---|---|---|---|---|"
KINDS: dict[Any, str] = {str: "text", bool: "`true`, `false`", int: "whole number", float: "number"}


def table() -> str:
    """Write one row for each key."""
    return "\n".join([HEAD, *(_row(name) for name in OPTIONS)])


def _row(name: str) -> str:
    each = OPTIONS[name]
    allows = option_of(each)
    form = allows.title if name != "max_suspect_images" else f"{allows.title}, where the file sets it"
    cells = [f"`{name}`", _value(kind_of(each), allows), _default(name, each.default), form, allows.says]
    return f"| {' | '.join(cells)} |"


def _value(kind: Any, allows: Option) -> str:
    if allows.pattern == ALLOWANCE:
        return "count or share"
    text = KINDS.get(kind, "list of texts")
    if kind not in {int, float}:
        return text
    low = f"above {allows.above:g}, " if allows.above is not None else f"{allows.least:,g} "
    return f"{text}, {low}to {allows.most:,.10g}"


def _default(name: str, default: Any) -> str:
    if name == "dag_id":
        return "the file's name"
    if name in SOURCES:
        return "one of these is required"
    if default is None:
        return "the installation's"
    if default is MISSING or default == "":
        return ""
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"


if __name__ == "__main__":
    print(table())  # noqa: T201 - what it is for
