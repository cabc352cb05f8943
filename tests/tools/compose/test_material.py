from pathlib import Path

import pytest

from tools.compose.stack import needed
from tools.local import demo

ARCHIVE = ("solar-cells.mar", "solar-cells.golden.json")


@pytest.mark.parametrize(
    ("present", "verbs"),
    [
        ((), list(demo.TRAINING)),
        ((*ARCHIVE[:1], "images"), list(demo.TRAINING)),
        (ARCHIVE, ["data"]),
        ((*ARCHIVE, "images"), []),
    ],
    ids=["nothing", "archive without golden images", "archive of a demo elsewhere", "all"],
)
def test_what_is_missing_is_made(tmp_path: Path, present: tuple[str, ...], verbs: list[str]) -> None:
    """An archive says nothing about the photographs: a demo elsewhere leaves only the archive here."""
    for name in present:
        path = tmp_path / name
        path.touch() if name in ARCHIVE else path.mkdir()
    assert needed(tmp_path / "images", tmp_path) == verbs
