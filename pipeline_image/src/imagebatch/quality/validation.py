"""Great Expectations, run on frames in memory: JSON results and Data Docs, no telemetry."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

# Must be set before the import; an operator's batch job does not report to a third party.
os.environ["GX_ANALYTICS_ENABLED"] = "False"

import great_expectations as gx
from great_expectations.checkpoint import Checkpoint, UpdateDataDocsAction
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation

_SITE = "run"


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of expectations and the frame that they are about."""

    name: str
    frame: pd.DataFrame
    expectations: list[Expectation]


def validate(suites: list[Suite], docs: Path) -> dict[str, Any]:
    """Validates frames and renders Data Docs.

    Args:
        suites: What to check.
        docs: Folder that the HTML goes to; the page to start from is `index.html`.

    Returns:
        Great Expectations' result as JSON types, by suite name.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for site in context.get_site_names():
        context.delete_data_docs_site(site)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
    context.add_data_docs_site(
        _SITE,
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": store,
        },
    )
    source = context.data_sources.add_pandas("run")
    results: dict[str, Any] = {}
    for suite in suites:
        batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all rows")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(
                name=suite.name,
                data=batch,
                suite=context.suites.add(
                    gx.ExpectationSuite(name=suite.name, expectations=suite.expectations)
                ),
            )
        )
        checkpoint = Checkpoint(
            name=suite.name,
            validation_definitions=[definition],
            actions=[UpdateDataDocsAction(name="docs", site_names=[_SITE])],
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": 5},
        )
        outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": suite.frame})
        (result,) = outcome.run_results.values()
        results[suite.name] = result.to_json_dict()  # type: ignore[no-untyped-call]  # not annotated upstream
    return results
