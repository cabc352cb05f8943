"""Whatever has happened to a file of a run: a documented exit code and one line, in every command."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.calls import Call, scored

Damage = Callable[[Path], object]
TURNS = 40

DAMAGES: tuple[Damage, ...] = (
    lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b'{"a": 1}'),
    lambda path: path.write_bytes(b"null"),
    lambda path: path.write_bytes(bytes(path.stat().st_size)),
    Path.unlink,
    lambda path: (path.unlink(), path.mkdir()),
)


def test_every_command_bears_every_damaged_file(call: Call, images: Path, runs: Path, tmp_path: Path) -> None:
    """Each file of a run is cut, emptied, replaced or removed, and each time another command looks at it."""
    (images / "001.jpg").write_bytes(b"no image")
    options = ("--shard-size", 25, "--max-failures", "100%")
    assert scored(call, "r", images, *options).code == 0
    (runs / "r/quality").mkdir()
    (runs / "r/quality/manifest.json").write_text("{}")  # a check without its seconds of loading
    assert call("report", "--run-id", "r", "--image-sample", 5).code == 0
    whole = shutil.copytree(runs, tmp_path / "whole")
    commands: tuple[tuple[object, ...], ...] = (
        ("verify",),
        ("preprocess", "--input", images, *options),
        ("score",),
        ("postprocess",),
        ("report", "--image-sample", 5),
        ("redrive",),
        ("baseline", "--output", tmp_path / "baseline.parquet"),
        ("history",),
    )
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    codes: set[int] = set()
    # Files, damages and commands meet in other pairs each time round: their numbers have no common divisor.
    turns = zip(itertools.cycle(files), itertools.cycle(DAMAGES), itertools.cycle(commands), strict=False)
    for file, damage, (name, *flags) in itertools.islice(turns, TURNS):
        shutil.rmtree(runs)
        shutil.copytree(whole, runs)
        damage(runs / file)
        outcome = call(
            name, *flags, *(() if name == "history" else ("--run-id", "r")), "--log-level", "error"
        )
        told = outcome.err.splitlines()
        assert outcome.code != 1, (name, str(file), outcome.err)
        assert outcome.code == 0 or told[-1].startswith("imagebatch: "), (name, str(file), outcome.err)
        assert "Traceback" not in outcome.err
        codes.add(outcome.code)
    assert codes <= {0, 65, 74, 78, 99}
