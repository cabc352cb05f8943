"""Great Expectations, imported as a batch job needs it: no telemetry, no libraries that no suite uses."""

from __future__ import annotations

import os

from imagebatch.stages.check.late import import_late

# Both must come before the import; an operator's batch job does not report to a third party.
os.environ["GX_ANALYTICS_ENABLED"] = "False"
import_late(["altair", "scipy.stats"])

import great_expectations as gx  # noqa: E402 (the variable above must be set first)
import great_expectations.expectations as gxe  # noqa: E402 (the variable above must be set first)
from great_expectations.core.batch_definition import BatchDefinition  # noqa: E402 (the variable above must be set first)
from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: E402 (the variable above must be set first)
from great_expectations.expectations.expectation import Expectation  # noqa: E402 (the variable above must be set first)

__all__ = ["BatchDefinition", "Expectation", "ProgressBarsConfig", "gx", "gxe"]
