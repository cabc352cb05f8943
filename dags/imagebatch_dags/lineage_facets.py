"""The OpenLineage objects of a stage; imported only where lineage is sent."""

from typing import Any

import attr
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import RunFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet

# The stage's counts and its model, as its last line names them (docs/reference/protocol.md).
COUNTS = ("listed", "accepted", "rejected", "predicted", "failed", "resumed", "shards")
MODEL = {"model": "name", "model_version": "version", "model_digest": "digest"}


@attr.define
class StageRunFacet(RunFacet):
    """What a stage's last line says.

    Attributes:
        runId: Name of the run's folder.
        stage: The command.
        counts: Images by outcome.
        model: Its name, version and digest, where the stage knows them.
    """

    runId: str  # noqa: N815 - OpenLineage's spelling
    stage: str
    counts: dict[str, int]
    model: dict[str, str]


def lineage_of(inputs: list[str], result: dict[str, Any]) -> OperatorLineage[Any, Any]:
    """Build the lineage of a stage that has ended.

    Args:
        inputs: URIs or paths that it read images from.
        result: Its last line.

    Returns:
        Inputs; the predictions and the certificate as outputs, the first with its rows; counts and model.
    """
    counts = {name: int(result[name]) for name in COUNTS if name in result}
    model = {short: str(result[name]) for name, short in MODEL.items() if name in result}
    rows = OutputStatisticsOutputDatasetFacet(rowCount=counts.get("predicted"))
    outputs = []
    if uri := result.get("predictions"):
        outputs.append(OutputDataset(*named(str(uri)), outputFacets={"outputStatistics": rows}))
    if uri := result.get("certificate"):
        outputs.append(OutputDataset(*named(str(uri))))
    facet = StageRunFacet(str(result.get("run_id")), str(result.get("stage")), counts, model)
    return OperatorLineage(
        inputs=[InputDataset(*named(uri)) for uri in inputs],
        outputs=outputs,
        run_facets={"imagebatch": facet},
    )


def named(uri: str) -> tuple[str, str]:
    """Split a URI or path as OpenLineage names datasets.

    Args:
        uri: such as `s3://bucket/key` or `/data/inputs`.

    Returns:
        Namespace (`s3://bucket`, `file`) and name (`key`, `/data/inputs`).
    """
    scheme, found, rest = uri.partition("://")
    if not found or scheme == "file":
        return "file", rest if found else uri
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", path or "/"
