"""Validate frames in memory, one after the other: JSON results and a page of them."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from imagebatch.stages.check.gx import BatchDefinition, Expectation, ProgressBarsConfig, gx
from imagebatch.stages.check.page import page


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of expectations."""

    name: str
    expectations: list[Expectation]


class Validator:
    """A session of Great Expectations that validates frames and keeps what was found.

    Args:
        docs: Folder that the page goes to, as `index.html`.

    Attributes:
        results: Great Expectations' results as JSON types: by suite, one per frame.
    """

    def __init__(self, docs: Path) -> None:
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        for site in self._context.get_site_names():
            self._context.delete_data_docs_site(site)
        # What is there now stays: the collection after each frame need not look at the libraries again.
        gc.collect()
        gc.freeze()
        self._docs = docs
        self.results: dict[str, list[dict[str, Any]]] = {}

    def validate(self, suite: Suite, frames: Iterable[pd.DataFrame]) -> None:
        """Validate frames, one in memory at a time."""
        found = self.results.setdefault(suite.name, [])
        expectations = self._context.suites.add(
            gx.ExpectationSuite(name=suite.name, expectations=suite.expectations)
        )
        for number, frame in enumerate(frames):
            # A data source of its own for each frame, removed afterwards: it holds the frame in a cache.
            name = f"{suite.name} {number + 1}"
            definition = self._context.validation_definitions.add(
                gx.ValidationDefinition(name=name, data=self._batch(name), suite=expectations)
            )
            outcome = definition.run(
                batch_parameters={"dataframe": frame},
                result_format={"result_format": "SUMMARY", "partial_unexpected_count": 5},
            )
            found.append(outcome.to_json_dict())  # type: ignore[no-untyped-call]  # not annotated upstream
            self._context.validation_definitions.delete(name)
            self._context.data_sources.delete(name)
            gc.collect()  # what is left of a validation holds its frame in a cycle

    def write_docs(self) -> None:
        """Write a page about everything validated so far."""
        (self._docs / "index.html").write_text(page(self.results), encoding="utf-8")

    def _batch(self, name: str) -> BatchDefinition[Any]:
        source = self._context.data_sources.add_pandas(name)
        return source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all rows")
