from pathlib import Path

import pytest

from tools import properties
from tools.paths import ROOT


def test_comments_blank_lines_and_words_say_nothing(tmp_path: Path) -> None:
    """Only NAME=value counts; a value may hold a `=`, and of a name that stands twice the last counts."""
    path = tmp_path / "file"
    path.write_text("# A=0\n  # B=0\n\nword\n A=1 \nURL=http://a/?b=c\nA=ä\n", encoding="utf-8")
    assert properties.read(path) == {"A": "ä", "URL": "http://a/?b=c"}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Values come back as text, in their order."""
    path = tmp_path / "file"
    path.write_text(properties.text({"workers": 2, "store": tmp_path, "empty": ""}))
    assert list(properties.read(path).items()) == [("workers", "2"), ("store", str(tmp_path)), ("empty", "")]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Nothing is started with settings that nobody has read."""
    with pytest.raises(FileNotFoundError):
        properties.read(tmp_path / "none")


@pytest.mark.parametrize("name", ["airflow/airflow.env", "airflow/celery.env", "handlers/config.properties"])
def test_no_line_of_a_shipped_file_is_passed_over(name: str) -> None:
    """Every line is a comment, blank, or a setting whose name stands once."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    assert lines == [f"{key}={value}" for key, value in properties.read(ROOT / name).items()]
