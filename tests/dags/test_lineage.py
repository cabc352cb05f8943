"""Lineage: what a stage's last line becomes as an OpenLineage event."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from imagebatch_dags.lineage import StageLineage
from imagebatch_dags.lineage_facets import named

RESULT = {
    "run_id": "nightly-1",
    "stage": "postprocess",
    "listed": 41,
    "predicted": 40,
    "failed": 0,
    "rejected": 1,
    "model": "solar-cells",
    "model_version": "1.0",
    "model_digest": "sha256:ab",
    "predictions": "s3://bucket/runs/nightly-1/output/predictions.csv",
    "certificate": "s3://bucket/runs/nightly-1/output/certificate.json",
}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/inputs", ("file", "/data/inputs")),
        ("file:///data/inputs", ("file", "/data/inputs")),
        ("s3://bucket/a/b.csv", ("s3://bucket", "a/b.csv")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_datasets_are_named_as_the_specification_says(uri: str, expected: tuple[str, str]) -> None:
    """Other systems that speak of the same files meet ours by these names."""
    assert named(uri) == expected


def test_a_stage_that_did_not_end_tells_nothing() -> None:
    """No counts, no datasets: only what happened is told."""
    assert StageLineage().get_openlineage_facets_on_complete(None) is None


def test_the_last_line_becomes_inputs_outputs_model_and_counts() -> None:
    """In an interpreter of its own: the provider's import must not depend on what other tests imported."""
    script = """
import json, sys
from imagebatch_dags.lineage import StageLineage
from openlineage.client.serde import Serde
stage = StageLineage()
stage.command = ["preprocess", "--input=/data/inputs/cells", "--model=solar-cells"]
stage.result = json.loads(sys.argv[1])
told = stage.get_openlineage_facets_on_complete(None)
print(json.dumps({
    "inputs": [json.loads(Serde.to_json(each)) for each in told.inputs],
    "outputs": [json.loads(Serde.to_json(each)) for each in told.outputs],
    "facet": json.loads(Serde.to_json(told.run_facets["imagebatch"])),
}))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "dags")}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(RESULT)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert [(each["namespace"], each["name"]) for each in told["inputs"]] == [("file", "/data/inputs/cells")]
    csv, certificate = told["outputs"]
    assert (csv["namespace"], csv["name"]) == ("s3://bucket", "runs/nightly-1/output/predictions.csv")
    assert csv["outputFacets"]["outputStatistics"]["rowCount"] == 40
    assert certificate["name"].endswith("certificate.json")
    assert told["facet"]["counts"] == {"listed": 41, "predicted": 40, "failed": 0, "rejected": 1}
    assert told["facet"]["model"] == {"name": "solar-cells", "version": "1.0", "digest": "sha256:ab"}
