from pathlib import Path

import pytest
from imagebatch.errors import StorageError
from imagebatch.local_file import replace_text


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing is left beside it."""
    path = tmp_path / "a.txt"
    for text in ("one", "zwei ü\n"):
        replace_text(path, text)
        assert path.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_replaced_stays(tmp_path: Path) -> None:
    """One line says what was asked for and why it failed; nothing is left beside it."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(StorageError, match=f"^--output {path}: Is a directory$"):
        replace_text(path, "text", "--output")
    with pytest.raises(StorageError, match=f"^{tmp_path}/none/a: No such file or directory$"):
        replace_text(tmp_path / "none" / "a", "text")
    assert list(tmp_path.iterdir()) == [path]
