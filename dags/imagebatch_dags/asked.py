"""What a run is asked for: the trigger's values over the pipeline's, as flags of `imagebatch`.

Airflow takes any key in a trigger's `conf` (3.3.2: a Param's schema sees its own value only), so a run with a
mistyped one would score the default input. The first task refuses it, before anything is claimed.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, date, datetime, time
from typing import Any, NoReturn

from airflow.sdk import Param

from imagebatch_dags.dates import PLACEHOLDERS, dated, names_a_date
from imagebatch_dags.options import Option, PipelineError, check, kind_of, option_of
from imagebatch_dags.outcome import WRONG_CONFIGURATION, raise_for_exit
from imagebatch_dags.pipeline import ALLOWANCE, OPTIONS, SOURCES, Pipeline
from imagebatch_dags.pipeline_files import nearest
from imagebatch_dags.run_name import FIRST

DATE = "date"
AIRFLOWS_OWN = "airflow/"  # keys that Airflow itself reads in a conf
KINDS: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
SHOWN = 60  # characters of a key or value that a person has written


def params_of(pipeline: Pipeline) -> dict[str, Param]:
    """Build the trigger form: every option with a title, in the order of `Pipeline`, and the date.

    Returns:
        Params by name. Each may be empty, which stands for the pipeline's own value.
    """
    made = {
        each.name: _param(kind_of(each), option_of(each), getattr(pipeline, each.name))
        for each in fields(pipeline)
        if option_of(each).title and (each.name != "max_suspect_images" or pipeline.max_suspect_images)
    }
    made[DATE] = Param(
        None,
        type=["null", "string"],
        format="date",
        title="Date",
        description="Day that {date} in the input stands for; empty: the run's own logical date, which a run"
        " by hand may lack.",
    )
    return made


def refuse_unknown(context: Mapping[str, Any]) -> None:
    """Refuse a run whose conf has a key that no Param of its DAG has; a `pre_execute` of first tasks.

    Args:
        context: of the task.

    Raises:
        AirflowFailException: it names the key and the nearest that is known.
    """
    conf, known = context["dag_run"].conf or {}, list(context["dag"].params)
    for key in conf:
        if key in known or key.startswith(AIRFLOWS_OWN):
            continue
        if key in OPTIONS and option_of(OPTIONS[key]).commands:
            hint = ": only the pipeline's file sets it;"
        else:
            hint = nearest(key, known) or ";"
        allowed = f"this DAG takes {', '.join(known) or 'no keys'}"
        _refuse(context["task"].task_id, f"conf has an unknown key {key[:SHOWN]!r}{hint} {allowed}")


class Asked:
    """The values of a run, as its templates ask for them.

    Args:
        pipeline: whose DAG it is.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def value(self, name: str, params: Mapping[str, Any]) -> Any:
        """Give one value: the trigger's, or where that is empty the pipeline's."""
        asked = params.get(name)
        own = getattr(self._pipeline, name)
        if asked is None or (asked == "" and own is None):
            return own
        if isinstance(asked, float) and asked.is_integer() and kind_of(OPTIONS[name]) is not float:
            asked = int(asked)  # JSON's 5.0 is an integer, to a Param too
        return str(asked) if kind_of(OPTIONS[name]) is str else asked  # 20 reads as a number, 5% as text

    def flag(self, name: str, params: Mapping[str, Any]) -> str:
        """Write one option as a flag of `imagebatch`; a macro.

        Returns:
            Such as `--top-k=4`, or nothing where the installation's value applies: operators drop an argument
            that is empty.

        Raises:
            AirflowFailException: it is no value that can be meant.
        """
        value = self.value(name, params)
        if value is None:
            return ""
        try:
            check(OPTIONS[name], value)
        except PipelineError as error:  # what a Param's schema does not see, such as NaN
            _refuse(FIRST, str(error))
        if option_of(OPTIONS[name]).of_lists and self._chosen(params)[0] == "input":
            if self.is_changed(params, [name]):
                _refuse(FIRST, f"{name} is about a manifest: give one, or leave {name} out")
            return ""  # of the pipeline's manifest, in whose place the trigger gives an input
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            return f"--{flag}" if value else f"--no-{flag}"
        return f"--{flag}={_text(name, value)}"

    def flags(self, command: str) -> list[str]:
        """Give the templates of every option that a command takes, but the input itself."""
        return [
            f"{{{{ flag({each.name!r}, params) }}}}"
            for each in fields(self._pipeline)
            if command in option_of(each).commands and each.name not in SOURCES
        ]

    def source(self, params: Mapping[str, Any], dag_run: Any) -> str:
        """Write the input, or the manifest, as a flag of `imagebatch`; a macro.

        Returns:
            Such as `--input=/data/2026-01-31`: what the trigger has changed wins over what it has not.

        Raises:
            AirflowFailException: the trigger gives both, or none, or a date is missing.
        """
        name, text = self._chosen(params)
        if not names_a_date(text):
            if params.get(DATE):
                _refuse(FIRST, f"date is given, but {name} {text[:SHOWN]!r} names none: use {PLACEHOLDERS}")
            return f"--{name}={_text(name, text)}"
        night = self.night(params, dag_run)
        if night is None:
            _refuse(
                FIRST,
                f"{name} {text[:SHOWN]!r} wants a date, and this run has none: give `date` (2026-01-31), or"
                " trigger it with a logical date",
            )
        try:
            return f"--{name}={_text(name, dated(text, night))}"
        except (OverflowError, ValueError):
            _refuse(FIRST, f"{name} {text[:SHOWN]!r}: the day is outside the calendar")

    def night(self, params: Mapping[str, Any], dag_run: Any) -> datetime | None:
        """Give the day that a run is about, in UTC: `date`, else its logical date; None if it has neither."""
        if params.get(DATE):
            try:
                return datetime.combine(date.fromisoformat(str(params[DATE])), time(), UTC)
            except ValueError:
                _refuse(FIRST, f"date: {str(params[DATE])[:SHOWN]!r} must be a day such as 2026-01-31")
        logical: datetime | None = dag_run.logical_date
        return logical.astimezone(UTC) if logical else None

    def is_changed(self, params: Mapping[str, Any], names: Iterable[str]) -> bool:
        """Tell whether the trigger gives one of these another value than the pipeline's."""
        return any(self.value(name, params) != getattr(self._pipeline, name) for name in names)

    def _chosen(self, params: Mapping[str, Any]) -> tuple[str, str]:
        given = {name: self.value(name, params) for name in SOURCES}
        changed = {name: text for name, text in given.items() if text and self.is_changed(params, [name])}
        if len(changed) > 1:
            _refuse(FIRST, "give one of input and manifest, not both")
        left = changed or {name: text for name, text in given.items() if text}
        if not left:
            _refuse(FIRST, "give one of input and manifest: both are empty")
        name, text = next(iter(left.items()))
        return name, str(text)


def _param(kind: Any, allows: Option, default: Any) -> Param:
    schema: dict[str, Any] = {"type": ["null", KINDS[kind]]}
    if kind is str:
        if allows.pattern:
            schema["pattern"] = allows.pattern
        if allows.most is not None:
            schema["maxLength"] = int(allows.most)
        if allows.pattern == ALLOWANCE:  # 20 reads as a number, 5% as text
            schema |= {"type": ["null", "string", "integer"], "minimum": 0, "maximum": 10**9 - 1}
    else:
        bounds = {"minimum": allows.least, "maximum": allows.most, "exclusiveMinimum": allows.above}
        schema |= {name: value for name, value in bounds.items() if value is not None}
    # The form refuses an empty field unless its type allows null.
    shown = None if default == "" else default
    return Param(shown, title=allows.title, description=allows.says, **schema)


def _text(name: str, value: Any) -> str:
    text = str(value)
    try:
        passes = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        passes = False
    if not passes:
        _refuse(FIRST, f"{name} holds a character that no file's name can hold")
    return text


def _refuse(task: str, reason: str) -> NoReturn:
    raise_for_exit(task, WRONG_CONFIGURATION, reason)
    raise AssertionError(reason)  # not reached: that code is no success
