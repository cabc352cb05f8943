"""The page says what was done to each run and what became of it."""

import math

from tests.system.chaos.__main__ import Chaos
from tests.system.chaos.page import PAGE, page
from tests.system.chaos.runs import Result
from tests.system.kit.scenario import Scenario
from tests.system.kit.table import line_of
from tests.system.kit.verdict import Verdict

DONE = Scenario("tea-spilt", "Tea is spilt.", lambda _: Result(0, 0, 0, 0.0, ""))


def test_passed_and_failed_lines() -> None:
    """A passed scenario shows its counts, a failed one why, on the terminal and on the page."""
    passed = Verdict(DONE, Result(240, 0, 0, 1.25, "two cups"), "", 9.0)
    failed = Verdict[Result](DONE, None, "RefutedError: 3 images lost", 9.0)
    assert line_of(passed) == f"{'tea-spilt':28}    240     0       0      1.2     9.0  passed: two cups"
    assert "FAILED: RefutedError: 3 images lost" in line_of(failed)
    text = page([passed, failed], 240, 2.0)
    assert "| tea-spilt | Tea is spilt. | 240 | 0 | 0 | 1.2 | passed: two cups |\n" in text
    assert "| tea-spilt | Tea is spilt. | | | | | failed: RefutedError: 3 images lost |\n" in text
    assert "Of 2 scenarios 1 passed" in text


def test_no_figure_where_there_is_none() -> None:
    """Extra seconds that mean nothing are a dash; noise below the undisturbed run's time is 0."""
    unknown = Verdict(DONE, Result(3, 0, 0, math.nan, ""), "", 1.0)
    faster = Verdict(DONE, Result(3, 0, 0, -0.4, ""), "", 1.0)
    assert "| 3 | 0 | 0 | - |" in page([unknown], 3, 1.0)
    assert "| 3 | 0 | 0 | 0.0 |" in page([faster], 3, 1.0)


def test_every_scenario_is_on_the_page_with_its_text() -> None:
    """The published page is of the scenarios that there are: run `make chaos` after changing one."""
    names = [one.name for one in Chaos.scenarios]
    assert len(names) == len(set(names)) >= 20
    rows = [line.split(" | ")[:2] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert sorted([f"| {one.name}", one.text] for one in Chaos.scenarios) == sorted(
        row for row in rows if row[0] != "| scenario"
    )
