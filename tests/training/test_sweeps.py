"""Several values of a setting, in Hydra's grammar, and the combinations that they make."""

import pytest
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.sweeps import expand


def test_every_combination_is_made_once() -> None:
    """The last key changes fastest; what has one value is in all of them, and is not what was chosen."""
    points = expand(["seed=1,2", "model.name=cells", "model.layer=choice('14.expansion','18')"])
    assert [point.chosen for point in points] == [
        [f"seed={seed}", f"model.layer={layer}"] for seed in (1, 2) for layer in ("14.expansion", "18")
    ]
    assert points[0].overrides == ["seed=1", "model.name=cells", "model.layer=14.expansion"]


def test_lists_and_ranges_are_hydras() -> None:
    """Commas inside brackets separate a list's entries; a range counts."""
    points = expand(["model.pooling=[mean],[mean,max]", "seed=range(1,3)"])
    assert [point.chosen for point in points] == [
        ["model.pooling=[mean]", "seed=1"],
        ["model.pooling=[mean]", "seed=2"],
        ["model.pooling=[mean,max]", "seed=1"],
        ["model.pooling=[mean,max]", "seed=2"],
    ]


def test_one_value_of_everything_is_one_combination() -> None:
    """Nothing was chosen then."""
    (point,) = expand(["seed=1"])
    assert (point.overrides, point.chosen) == (["seed=1"], [])
    assert len(expand([])) == 1


@pytest.mark.parametrize("word", ["seed=interval(0,1)", "seed=1,2)", "seed=range(a,b)"])
def test_what_cannot_be_listed_is_one_line(word: str) -> None:
    """Values between two numbers, and what is no grammar."""
    with pytest.raises(ConfigurationError, match=r"^configuration: [^\n]+$"):
        expand([word])
