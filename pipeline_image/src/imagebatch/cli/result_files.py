"""Fields of a command's result as files, for orchestrators that read files and not standard output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagebatch.errors import StorageError, UsageError

LINE, SHARD_LIST = "line", "shard_list"


def write_result_files(asked: str, content: Mapping[str, Any]) -> None:
    """Write what `--result-files` asks for; folders are made.

    Args:
        asked: NAME=PATH, with commas between them.
        content: The fields of the last line, none of them shortened.

    Raises:
        UsageError: The command has no such field; nothing is written then.
        StorageError: A file cannot be written.
    """
    known = {**content, LINE: dict(content), **_shard_list(content)}
    wanted = dict(pair.split("=", 1) for pair in asked.split(",") if pair)
    unknown = wanted.keys() - known.keys()
    if unknown:
        raise UsageError(
            f"--result-files: {content['stage']} is done, but has no {min(unknown)}; it has"
            f" {', '.join(known)}"
        )
    for name, path in wanted.items():
        value = known[name]
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
        except OSError as error:
            raise StorageError(f"--result-files: cannot write {path}: {error.strerror}") from error


def _shard_list(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name preprocess's shards, as texts: some orchestrators turn a number into 0.0 on its way."""
    if content["stage"] != "preprocess":
        return {}
    return {SHARD_LIST: [str(number) for number in range(content["shards"])]}
