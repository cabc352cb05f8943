"""The way from a finished run in the UI to its result."""

import os
from typing import Any
from urllib.parse import quote

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

from imagebatch_dags.run_name import run_name


class ResultLink(BaseOperatorLink):
    """A button `Result` on the task that writes the product.

    It leads to what `IMAGEBATCH_RESULTS_URL` says, such as `https://files.example/{run}/output/`, with the
    name of the run's folder in place of `{run}`; without it to the task's own page of counts and paths.
    """

    name = "Result"
    page = ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Build the address, once the task has ended.

        Args:
            operator: the task, whose result names the folder that it has worked in.
            ti_key: its instance: `dag_id`, `run_id`, `task_id`.

        Returns:
            An absolute URL.
        """
        template = os.environ.get("IMAGEBATCH_RESULTS_URL")
        if template:
            worked_in = (getattr(operator, "result", None) or {}).get("run_id")
            folder = template.replace("{run}", str(worked_in or run_name(ti_key.dag_id, ti_key.run_id)))
            return folder + self.page if folder.endswith("/") else folder
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        run = quote(ti_key.run_id, safe="")
        return f"{base}/dags/{ti_key.dag_id}/runs/{run}/tasks/{ti_key.task_id}/xcom"


class ReportLink(ResultLink):
    """A button `Report` on the task that writes the page: to `report.html` in the folder of the results."""

    name = "Report"
    page = "report.html"
