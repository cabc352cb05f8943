"""Great Expectations, imported as a batch job needs it: no telemetry, no libraries that no suite uses.

Its clients of clouds and databases are optional, and it does without those that are not installed. Frames in
memory need none of them; imported they are a third of the time that Great Expectations takes to import.
"""

from __future__ import annotations

import os

from imagebatch.stages.check.late import import_late, not_installed

# Both must come before the import; an operator's batch job does not report to a third party.
os.environ["GX_ANALYTICS_ENABLED"] = "False"
import_late(["altair", "scipy.stats"])

_CLIENTS = (
    "azure",
    "boto3",
    "botocore",
    "google.api_core",
    "google.auth",
    "google.cloud",
    "google.oauth2",
    "sqlalchemy",
)

with not_installed(_CLIENTS):
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation import Expectation

__all__ = ["BatchDefinition", "Expectation", "ProgressBarsConfig", "gx", "gxe"]
