"""Pipelines as YAML files in one folder: a mistake in one file is told with its key, and the others stand."""

import difflib
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from imagebatch_dags.options import PipelineError, check, option_of, shown
from imagebatch_dags.pipeline import ALLOWANCE, OPTIONS, TAKEN, Pipeline

SUFFIXES = (".yaml", ".yml")
LARGEST = 65_536  # bytes; a pipeline is a few lines, and this is read at every look at the DAGs
LONGEST_REASON = 1000  # characters


@dataclass(frozen=True)
class Found:
    """What the files of a folder say.

    Attributes:
        pipelines: of the files that are right, by file name.
        mistakes: one line for each that is not; it names the file and the key.
    """

    pipelines: list[Pipeline] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def read_pipelines(folder: Path, environment: Mapping[str, str] = os.environ) -> Found:
    """Read every pipeline of a folder.

    Args:
        folder: whose `*.yaml` and `*.yml` are read; hidden files and what lies in folders below are not.
        environment: where `${NAME}` in text values is looked up.

    Returns:
        The pipelines and the mistakes. Where several files give one `dag_id`, the one that is named after it
        stands; where none is, none of them does.
    """
    found = Found()
    by_id: dict[str, list[tuple[Path, Pipeline]]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        try:
            pipeline = read_pipeline(path, environment)
        except ValueError as error:
            found.mistakes.append(str(error))
            continue
        if pipeline.dag_id in TAKEN:
            found.mistakes.append(_told(path, f"dag_id: {pipeline.dag_id} is a DAG of this folder already"))
        else:
            by_id[pipeline.dag_id].append((path, pipeline))
    for dag_id, several in by_id.items():
        owners = [(path, pipeline) for path, pipeline in several if path.stem == dag_id]
        standing = several if len(several) == 1 else owners if len(owners) == 1 else []
        found.pipelines.extend(pipeline for _, pipeline in standing)
        others = [path for path, _ in several if path not in {path for path, _ in standing}]
        for path in others:
            names = ", ".join(other.name for other, _ in several if other != path)
            found.mistakes.append(_told(path, f"dag_id: {dag_id} is also that of {names}; give each its own"))
    return found


def read_pipeline(path: Path, environment: Mapping[str, str] = os.environ) -> Pipeline:
    """Read one YAML file.

    Args:
        path: the file; its keys are the fields of `Pipeline`, and `dag_id` is its stem unless given.
        environment: where `${NAME}` in text values is looked up.

    Returns:
        The pipeline.

    Raises:
        ValueError: whatever is wrong with the file, in one line that names it, the key, and what is allowed.
    """
    try:
        values = _checked(_content(path), environment)
        _check_stem(path, values)
        return Pipeline(**{"dag_id": path.stem, **values})
    except (ValueError, OSError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ValueError(_told(path, reason)) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Propose a known name for one that is not.

    Returns:
        `: did you mean 'input'?`, or nothing if none resembles it.
    """
    close = difflib.get_close_matches(name.lower().replace("-", "_")[:100], list(known), 1, 0.6)
    return f": did you mean {close[0]!r}?" if close else ""


def one_line(text: str) -> str:
    """Make any text fit for a line: no control characters, bounded."""
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return flat if len(flat) <= LONGEST_REASON else f"{flat[: LONGEST_REASON - 1]}…"


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: YAML's own rule, which PyYAML does not hold."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys: set[str] = set()
        for key, _ in node.value:
            text = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if text and text != "<<" and text in keys:
                raise PipelineError(text[:60], "is there twice")
            keys.add(text)
        return super().construct_mapping(node, deep)


def _content(path: Path) -> Any:
    if not path.is_file():
        raise ValueError("it is no file, or a link to none")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes: a pipeline is a few lines")
    data = path.read_bytes()
    try:
        return yaml.load(data, _Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise ValueError(_unreadable(data, error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError("it is no YAML in UTF-8") from error


def _unreadable(data: bytes, error: yaml.MarkedYAMLError) -> str:
    """Say where the text is no YAML, with the line, whose beginning is its key."""
    mark = error.context_mark or error.problem_mark
    lines = data.decode("utf-8", "replace").splitlines()
    line = lines[mark.line].strip()[:60] if mark and mark.line < len(lines) else ""
    where = f"line {mark.line + 1} ({line}): " if mark else ""
    hint = "; a value with { or [ in it, or with ': ', stands in quotes"
    return f"{where}no YAML: {error.problem or 'it cannot be read'}{hint}"


def _checked(content: Any, environment: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"it must be lines of the form key: value, not {shown(content)}")  # noqa: TRY004 - one kind for all that a file can have wrong
    for key in content:
        if key not in OPTIONS:
            known = "" if (near := nearest(str(key), OPTIONS)) else f"; the keys are {', '.join(OPTIONS)}"
            raise ValueError(f"unknown key {shown(key)}{near}{known}")
    values = {}
    for key, value in content.items():
        values[key] = _expanded(key, value, environment)
        if values[key] is None:
            raise PipelineError(key, 'has no value: leave the key out for its default, or write ""')
        check(OPTIONS[key], values[key])
    return values


def _check_stem(path: Path, values: Mapping[str, Any]) -> None:
    if "dag_id" not in values:
        try:
            check(OPTIONS["dag_id"], path.stem)
        except PipelineError as error:
            raise ValueError(f"{error}; it is the file's name: rename the file, or give a dag_id") from error


def _expanded(key: str, value: Any, environment: Mapping[str, str]) -> Any:
    if option_of(OPTIONS[key]).pattern == ALLOWANCE and type(value) is int:
        return str(value)  # 20 reads as a number, 5% as text
    if not isinstance(value, str):
        return value
    try:
        return Template(value).substitute(environment)
    except KeyError as error:
        raise PipelineError(key, f"environment variable {error.args[0]} is not set") from error
    except ValueError as error:
        raise PipelineError(key, f"{shown(value)}: write $$ for a $ that begins no ${{NAME}}") from error


def _told(path: Path, reason: str) -> str:
    return f"pipeline {' '.join(str(path).split())}: {one_line(reason)}"
