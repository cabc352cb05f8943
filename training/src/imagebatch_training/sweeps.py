"""Overrides with several values, as Hydra's `--multirun` has them, and the combinations that they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from imagebatch_training.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination.

    Attributes:
        overrides: All overrides, each with one value.
        chosen: Those of them that had several.
    """

    overrides: Sequence[str]
    chosen: Sequence[str] = ()


def expand(overrides: Sequence[str]) -> list[Point]:
    """Make every combination of values, the last key's values changing fastest.

    Args:
        overrides: In Hydra's grammar: `a=1,2`, `b=choice(x,y)`, `c=range(1,4)`.

    Returns:
        One point at least.

    Raises:
        ConfigurationError: One is not in the grammar, or names no values that could be listed.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = []
        for override in parsed:
            if not override.is_sweep_override():
                choices.append([(override.input_line or "", False)])
            elif override.is_discrete_sweep():
                key = override.get_key_element()
                choices.append([(f"{key}={value}", True) for value in override.sweep_string_iterator()])
            else:
                raise ConfigurationError(
                    f"configuration: {override.input_line}: say the values, as KEY=a,b,c"
                )
    except (HydraException, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigurationError(f"configuration: {text}") from error
    return [
        Point(overrides=[text for text, _ in one], chosen=[text for text, several in one if several])
        for one in product(*choices)
    ]
