"""The kit: what is chosen, what a verdict says, and how a suite ends."""

import argparse
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.kit.scenario import Scenario, choose, described
from tests.system.kit.suite import Suite, run
from tests.system.kit.table import head_of, row_of
from tests.system.kit.verdict import Seen, Verdict, require


def tea_spilt(_: object) -> Seen:
    """Tea is
    spilt.

    Nobody reads this.
    """
    return Seen("two cups")


def milk_spilt(_: object) -> Seen:
    """Milk is spilt."""
    require(condition=False, text="a cat\nhas come")
    return Seen("")


ALL = [
    Scenario(act=tea_spilt, **{**described(tea_spilt), "part": "drinks"}),
    Scenario(act=milk_spilt, **{**described(milk_spilt), "part": "drinks"}),
    Scenario("cup-broken", "A cup breaks.", lambda _: Seen("shards"), "dishes"),
]


class Kitchen(Suite[Scenario, Seen]):
    """Three small accidents, and what the suite was told about them."""

    verb = "kitchen"
    text = "Accidents."
    scenarios = ALL

    def __init__(self, folder: Path, *, goes_on: bool = True, complaints: Sequence[str] = ()) -> None:
        self.folder = folder
        self.goes_on = goes_on
        self.complaints = list(complaints)
        self.ended = False
        self.complete: bool | None = None

    @contextmanager
    def system(self, asked: argparse.Namespace) -> Iterator[None]:
        del asked
        yield
        self.ended = True

    def act(self, scenario: Scenario) -> Seen:
        seen: Seen = scenario.act(self)
        return seen

    def finish(self, verdicts: Sequence[Verdict[Seen]], *, complete: bool) -> list[str]:
        del verdicts
        self.complete = complete
        return self.complaints


@pytest.fixture(autouse=True)
def _terminated_as_before() -> Iterator[None]:
    """A suite sets what happens on SIGTERM, for the whole process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_a_function_describes_its_scenario() -> None:
    """Name, sentence and part come from the function, so that the table cannot say another thing."""
    assert described(tea_spilt) == {"name": "tea-spilt", "text": "Tea is spilt.", "part": "test_kit"}


@pytest.mark.parametrize(
    ("parts", "names", "chosen"),
    [
        ("", "", ["tea-spilt", "milk-spilt", "cup-broken"]),
        ("drinks", "", ["tea-spilt", "milk-spilt"]),
        ("dishes drinks", "", ["tea-spilt", "milk-spilt", "cup-broken"]),
        ("", "milk or cup", ["milk-spilt", "cup-broken"]),
        ("drinks", "milk cup", ["milk-spilt"]),
    ],
)
def test_parts_and_names_choose(parts: str, names: str, chosen: list[str]) -> None:
    """PART= takes whole parts, K= pieces of names, both together what is in both."""
    assert [one.name for one in choose(ALL, parts, names)] == chosen


@pytest.mark.parametrize(
    ("parts", "names", "told"),
    [
        ("dishes cellar", "", "there is no part cellar; the parts are drinks, dishes"),
        ("dishes", "tea", "no scenario is named tea; there are cup-broken"),
    ],
)
def test_what_is_not_there_is_refused(
    parts: str, names: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names what there is, and the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        choose(ALL, parts, names)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_failure_is_told_and_does_not_end_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each scenario has its line, the exit code is 1, the files stay, and the system is ended."""
    kitchen = Kitchen(folder)
    assert run(kitchen, []) == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[1/3\]   tea-spilt +0\.0  passed: two cups", lines[2])
    assert re.fullmatch(r"\[2/3\]   milk-spilt +0\.0  FAILED: RefutedError: a cat has come", lines[3])
    assert re.fullmatch(r"\[3/3\]   cup-broken +0\.0  passed: shards", lines[4])
    assert lines[-1] == f"1 of 3 scenarios failed, 0 other complaints; their files are in {folder}"
    assert (kitchen.ended, kitchen.complete, folder.is_dir()) == (True, True, True)


def test_a_suite_can_end_with_its_first_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where scenarios stand on each other, none is played after a failure, and no page is written."""
    kitchen = Kitchen(folder, goes_on=False)
    assert run(kitchen, []) == 1
    assert "cup-broken" not in capsys.readouterr().out
    assert kitchen.complete is False


def test_what_is_chosen_passes_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 0, the files are gone, and no page is written from a part."""
    kitchen = Kitchen(folder)
    assert run(kitchen, ["--part", "drinks", "-k", "tea"]) == 0
    assert capsys.readouterr().out.endswith("all 1 scenarios passed\n")
    assert (kitchen.complete, folder.exists()) == (False, False)


def test_a_complaint_beside_the_verdicts_fails_the_suite(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the suite finds wrong at its end is told, and the exit code is 1."""
    assert run(Kitchen(folder, complaints=["the floor is wet"]), ["-k", "tea"]) == 1
    assert "FAILED: the floor is wet" in capsys.readouterr().out


def test_the_list_plays_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--list names each scenario with its sentence, and nothing is started."""
    kitchen = Kitchen(folder)
    assert run(kitchen, ["--list", "--part", "dishes"]) == 0
    assert capsys.readouterr().out == f"{'cup-broken':28}A cup breaks.\n"
    assert not kitchen.ended


def test_rows_of_markdown() -> None:
    """An empty cell is one space wide."""
    assert head_of(("a", "b")) == "| a | b |\n|---|---|\n"
    assert row_of(("a", "", "", "b")) == "| a | | | b |\n"
