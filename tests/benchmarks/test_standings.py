import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lib import standings
from benchmarks.lib.contestants import CONTESTANTS, chosen
from benchmarks.lib.record import Record, check

ANSWER = (["a", "b"], [0.75, 0.25])


def entry(name: str, rate: float, cpu: float = 1.0, number: int = 0, race: str = "a") -> dict[str, Any]:
    when = {"race": race, "round": number, "startup": 2.0}
    return {"name": name, "images": 100, "seconds": 100 / rate, "cpu": cpu, "agreement": 1.0} | when


def test_ratios_are_taken_round_by_round_against_the_best_of_each_group() -> None:
    """Neither an outlier nor a machine that changes its speed moves them, and the best peer counts."""
    speeds = [1.0, 0.5, 2.0, 1.0]
    rates = {
        "ours": [200 * speed for speed in speeds[:3]] + [900],
        "ceiling": [250 * speed for speed in speeds],
        "stock-tuned": [50],
        "fastapi": [60],
        "kserve": [80 * speed for speed in speeds[:2]],
        "kserve-ours": [210],
        "fastapi-ours": [100],
    }
    result = standings.summary(
        [entry(name, rate, number=at) for name, found in rates.items() for at, rate in enumerate(found)]
    )
    assert result["ratio_to_ceiling"] == pytest.approx(0.8)
    assert result["ratio_to_stock"] == pytest.approx(4.0)
    assert result["ratio_to_best_server"] == pytest.approx(2.5)
    assert result["ratio_to_best_with_our_engine"] == pytest.approx(0.952)
    assert result["contestants"]["ceiling"]["ours_is"] == {"median": 0.8, "lowest": 0.8, "highest": 3.6}
    assert "ours_is" not in result["contestants"]["ours"]


def test_a_round_that_one_has_missed_is_compared_with_nothing() -> None:
    """Each ratio is of one round of one race: a failure, or rounds taken later, shift nothing."""
    ours = [entry("ours", 100, number=0), entry("ours", 400, number=1), entry("ours", 50, number=0, race="b")]
    late = [entry("ceiling", 500, number=1), entry("ceiling", 100, number=0, race="b")]
    rows = standings.summary([*ours, *late, entry("litserve", 50, race="c")])["contestants"]
    assert rows["ceiling"]["ours_is"] == {"median": 0.65, "lowest": 0.5, "highest": 0.8}
    assert "ours_is" not in rows["litserve"]


def test_the_table_holds_a_row_per_contestant_with_cpu_per_image() -> None:
    """CPU seconds are shown per image, in milliseconds, beside the factor of ours."""
    table = standings.table(standings.summary([entry("ours", 200, cpu=0.5), entry("litserve", 50, cpu=2.5)]))
    (row,) = [line for line in table.splitlines() if line.startswith("| LitServe")]
    cells = [cell.strip() for cell in row.split("|")[2:6]]
    assert cells == ["50", "50 to 50", "25.0", "4.00 x (4.00 to 4.00)"]


def test_our_engine_must_give_our_very_probabilities() -> None:
    """A difference in the last digit is another answer; eager torch is held to the class alone."""
    other = {"x": (["a", "b"], [0.7500001, 0.2499999])}
    (ours,), (eager,) = chosen(["fastapi-ours"]), chosen(["fastapi"])
    assert check(ours, {"x": ANSWER}, {"x": ANSWER}) == 1
    assert check(eager, other, {"x": ANSWER}) == 1
    with pytest.raises(SystemExit, match="fastapi-ours answers otherwise on 1 images"):
        check(ours, other, {"x": ANSWER})
    with pytest.raises(SystemExit, match="another model"):
        check(eager, {"x": (["b", "a"], [0.75, 0.25])}, {"x": ANSWER})


def test_a_record_without_measurements_is_an_error(tmp_path: Path) -> None:
    """Nothing is published out of nothing."""
    record = Record(tmp_path / "none.jsonl")
    with pytest.raises(SystemExit, match="no measurements"):
        record.entries()
    (tmp_path / "none.jsonl").write_text(json.dumps(entry("ours", 1)) + "\n")
    assert [each["name"] for each in record.entries()] == ["ours"]
    record.forget()
    with pytest.raises(SystemExit, match="no measurements"):
        record.entries()


def test_every_contestant_has_an_environment_and_a_program() -> None:
    """A name that is listed can be started: its folder and its script are in the repository."""
    names = [each.name for each in CONTESTANTS]
    assert len(names) == len(set(names))
    for each in CONTESTANTS:
        assert (each.programs.parent.parent / "uv.lock").is_file(), each.name
        scripts = [part for part in each.program if part.endswith(".py")]
        modules = [name for flag, name in pairwise(each.program) if flag == "-m"]
        scripts += [f"{name.replace('.', '/')}.py" for name in modules if name.startswith("benchmarks.")]
        assert all((each.folder / script).is_file() for script in scripts), each.name
