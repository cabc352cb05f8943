"""Dates in the name of an input: `s3://photographs/{date:%Y/%m/%d}` is another folder every day.

No template language: whoever triggers a run writes such a name, too, and nothing of it is ever evaluated.
"""

import re
from datetime import datetime, timedelta

PLACEHOLDERS = (
    "{date} (2026-01-31), {date:%Y/%m/%d} with the letters of strftime, {date-1} for the day before,"
    " {{ ds }} or {{ ds_nodash }}"
)
_AIRFLOWS = {"ds": "%Y-%m-%d", "ds_nodash": "%Y%m%d"}
_DATE = re.compile(
    r"\{\{ *(?P<airflows>ds|ds_nodash) *\}\}"
    r"|\{date(?P<days>[+-][0-9]{1,4})?(?::(?P<form>(?:[^{}%]|%[YymdHMjGVuUWab])+))?\}"
)
# What looks like one and is none: a template of Airflow's, or one of ours with a mistake in it.
_LIKE = re.compile(
    r"\{\{[^}]*\}?\}?|\{%[^}]*\}?|\{(?:date|ds|day|today|yesterday|execution_date|logical_date)\b[^}]*\}?"
)


def names_a_date(text: str) -> bool:
    """Tell whether a name changes from day to day."""
    return bool(_DATE.search(text))


def mistake_in(text: str) -> str:
    """Find what was meant as a date and is none.

    Returns:
        It, at most 60 characters; empty if there is nothing of the kind.
    """
    found = _LIKE.search(_DATE.sub("", text))
    return found[0][:60] if found else ""


def dated(text: str, night: datetime) -> str:
    """Put a date into a name.

    Args:
        text: with any number of placeholders.
        night: the day, and the hour where the name has one; UTC.

    Returns:
        The name of that day.

    Raises:
        OverflowError: the day is outside the calendar.
    """

    def written(found: re.Match[str]) -> str:
        if found["airflows"]:
            return night.strftime(_AIRFLOWS[found["airflows"]])
        day = night + timedelta(days=int(found["days"] or 0))
        return day.strftime(found["form"] or "%Y-%m-%d")

    return _DATE.sub(written, text)
