"""The settings file: what wins over it, what it may hold, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from imagebatch import cli

from tests.support.calls import Call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tuned.env"
    path.write_text("# tuned\n\nIMAGEBATCH_PACK_SIZE=48\nIMAGEBATCH_IN_FLIGHT=5\nIMAGEBATCH_WORKERS=3\n")
    return path


def test_flags_and_variables_win_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one setting the flag counts first, then the variable, then the file, then the default."""
    monkeypatch.setenv("IMAGEBATCH_IN_FLIGHT", "7")
    arguments = ["score", "--run-id", "r", "--settings-file", str(file)]
    wanted = {"pack_size", "in_flight", "request_timeout"}
    _, asked = cli.parse(arguments)
    assert asked.model_dump(include=wanted) == {"pack_size": 48, "in_flight": 7, "request_timeout": 120}
    _, asked = cli.parse([*arguments, "--pack-size", "9"])
    assert asked.model_dump(include={"pack_size"}) == {"pack_size": 9}


def test_one_file_serves_every_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes what it knows, also where a variable names the file."""
    monkeypatch.setenv("IMAGEBATCH_SETTINGS_FILE", str(file))
    _, models = cli.parse(["models", "list"])
    _, verify = cli.parse(["verify", "--run-id", "r"])
    assert models.model_dump(include={"workers"}) == {"workers": 3}
    assert "pack_size" not in verify.model_dump()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("IMAGEBATCH_PACKSIZE=3", 78, "no command has a setting IMAGEBATCH_PACKSIZE"),
        ("export PACK_SIZE=3", 78, "'export PACK_SIZE=3' is not IMAGEBATCH_NAME=value"),
        ("IMAGEBATCH_PACK_SIZE", 78, "is not IMAGEBATCH_NAME=value"),
        ("IMAGEBATCH_PACK_SIZE=many", 2, "--pack-size many: Input should be a valid integer"),
    ],
)
def test_a_wrong_line_is_one_line_of_error(
    call: Call, tmp_path: Path, text: str, code: int, said: str
) -> None:
    """A typo never changes nothing in silence."""
    (tmp_path / "x.env").write_text(text + "\n")
    outcome = call("score", "--run-id", "r", "--settings-file", tmp_path / "x.env")
    assert (outcome.code, said in outcome.err, len(outcome.err.splitlines())) == (code, True, 1), outcome.err


def test_a_file_that_is_not_there_is_an_error(call: Call, tmp_path: Path) -> None:
    """Nobody runs untuned without knowing."""
    outcome = call("score", "--run-id", "r", "--settings-file", tmp_path / "none.env")
    assert (outcome.code, "none.env: No such file or directory" in outcome.err) == (78, True)
