"""What every command's settings can do."""

from __future__ import annotations

from imagebatch.settings import MeasuringSettings, ModelsSettings, PreprocessSettings


def test_a_part_takes_what_both_commands_have() -> None:
    """Settings of the same name are handed on, others left out, and what is given by name wins."""
    whole = MeasuringSettings(input="images", pack_size=7, api_url="http://a", rounds=2, limit=9)
    part = whole.part(PreprocessSettings, run_id="r", limit=1)
    assert (part.input, part.api_url, part.run_id, part.limit) == ("images", "http://a", "r", 1)
    assert type(part) is PreprocessSettings
    models = whole.part(ModelsSettings, action="describe", model="other")
    assert (models.api_url, models.action, models.model) == ("http://a", "describe", "other")
