"""What a run was asked for, and what preprocess found: run.json and the plan."""

from __future__ import annotations

from imagebatch.contracts.layout import PLAN, RUN_JSON
from imagebatch.contracts.records import Plan, RunDescription
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.runs.parts import Files


def read_description(run: Files) -> RunDescription:
    """Read run.json.

    Raises:
        ConfigurationError: There is no such run.
    """
    try:
        return RunDescription.model_validate_json(run.read(RUN_JSON))
    except FileNotFoundError as error:
        raise ConfigurationError(f"no run at {run.uri}: start it with imagebatch preprocess") from error
    except ValueError as error:
        raise NotProvenError(f"{run.uri}/{RUN_JSON} is not what preprocess wrote: {error}") from error


def read_plan(run: Files) -> Plan:
    """Read what preprocess found.

    Raises:
        ConfigurationError: Preprocess has not finished.
    """
    try:
        return Plan.model_validate_json(run.read(PLAN))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{run.uri} is not planned: finish imagebatch preprocess first") from error
    except ValueError as error:
        raise NotProvenError(f"{run.uri}/{PLAN} is not what preprocess wrote: {error}") from error
