"""What a pipeline must not ask of a broker that hands out anew what was not acknowledged in time."""

from airflow.configuration import conf

from imagebatch_dags.options import PipelineError
from imagebatch_dags.pipeline import Pipeline

DEFAULT_SECONDS = 86_400  # of Airflow's provider
SECTION, KEY = "celery_broker_transport_options", "visibility_timeout"


def check_visibility(pipeline: Pipeline) -> None:
    """Refuse stages that may run longer than the broker waits for them, where tasks come from one.

    Redis gives a message to a second worker when its visibility timeout is over, though the first still works
    on it: at best the second is told that it is too late, at worst the first is ended.

    Raises:
        PipelineError: the longest stage is not below the timeout.
    """
    if not conf.get("core", "executor").rpartition(".")[2].startswith("CeleryExecutor"):
        return
    seconds = conf.getint(SECTION, KEY, fallback=DEFAULT_SECONDS)
    if pipeline.stage_timeout_minutes * 60 >= seconds:
        variable = f"AIRFLOW__{SECTION}__{KEY}".upper()
        raise PipelineError(
            "stage_timeout_minutes",
            f"{pipeline.stage_timeout_minutes:g} must be below {seconds / 60:g}, after which the broker hands"
            f" a stage out again: lower it, or raise {variable} (in seconds) for every process of Airflow",
        )
