"""OpenLineage: what a stage read and wrote, with which model and how many images.

Airflow's OpenLineage provider asks the operators, and sends where `AIRFLOW__OPENLINEAGE__TRANSPORT` says;
while that is unset nothing of this is called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


class StageLineage:
    """Makes an operator of a stage tell its lineage.

    Attributes:
        result: The stage's last line; None until it has ended.
    """

    result: dict[str, Any] | None = None

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> "OperatorLineage[Any, Any] | None":
        """Describe what the stage has done, when it has."""
        if not self.result:
            return None
        # The provider's classes cost a second and 400 modules, which no reading of a DAG file should pay.
        from imagebatch_dags.lineage_facets import lineage_of  # noqa: PLC0415 - only where lineage is sent

        command: list[str] = list(getattr(self, "command", None) or [])
        flags = [part.split("=", 1)[1] for part in command if part.startswith(("--input=", "--manifest="))]
        return lineage_of([flag for flag in flags if flag], self.result)
