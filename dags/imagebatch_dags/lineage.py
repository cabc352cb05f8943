"""OpenLineage: what a stage read and wrote, with which model and how many images.

Airflow's OpenLineage provider asks the operators, and sends where `AIRFLOW__OPENLINEAGE__TRANSPORT` says;
without the provider, or with that unset, nothing of this is called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

# The stage's counts, as its last line names them (docs/reference/protocol.md).
COUNTS = ("listed", "accepted", "rejected", "predicted", "failed", "shards")
PRODUCER = "https://github.com/imagebatch/imagebatch"


class StageLineage:
    """Makes an operator of a stage tell its lineage.

    Attributes:
        result: The stage's last line; None until it has ended.
    """

    result: dict[str, Any] | None = None

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> "OperatorLineage | None":
        """Describe what the stage has done, when it has."""
        if not self.result:
            return None
        from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415 - only where it is used

        inputs, outputs = self._datasets()
        return OperatorLineage(inputs=inputs, outputs=outputs, run_facets=self._run_facets())

    def _datasets(self) -> tuple[list[Any], list[Any]]:
        from openlineage.client.event_v2 import Dataset  # noqa: PLC0415 - as above

        result = self.result or {}
        inputs = [Dataset(*named(flag)) for flag in self._input_flags()]
        rows = result.get("predicted")
        facets = {} if rows is None else _output_facets(int(rows))
        outputs = [Dataset(*named(str(uri)), facets=facets) for uri in [result.get("predictions")] if uri]
        return inputs, outputs

    def _input_flags(self) -> list[str]:
        command: list[str] = list(getattr(self, "command", None) or [])
        flags = [part.split("=", 1) for part in command if part.startswith(("--input=", "--manifest="))]
        return [value for _, value in flags if value]

    def _run_facets(self) -> dict[str, Any]:
        from airflow.providers.openlineage.utils.utils import AirflowRunFacet  # noqa: F401, PLC0415 - fails early if away
        from openlineage.client.generated.base import RunFacet  # noqa: PLC0415 - as above
        from openlineage.client.utils import RedactMixin  # noqa: F401, PLC0415 - the same

        return {"imagebatch": _facet(RunFacet, self.result or {})}


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
