"""A healthcheck for Airflow's containers: exits 0 when the component that is named has a fresh heartbeat.

Run in the container with the component's name as the API server knows it (`metadatabase`, `scheduler`,
`dag_processor`, `triggerer`). Standard library only, for `airflow jobs check` costs seconds of a core each
time.
"""

import json
import os
import sys
import urllib.request


def main(component: str) -> int:
    """Ask the API server for one component's health.

    Args:
        component: its key in the answer.

    Returns:
        0 if it is healthy, else 1.
    """
    address = os.environ.get("IMAGEBATCH_AIRFLOW_URL", "http://127.0.0.1:8080")
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as answer:
            status = json.load(answer)[component]["status"]
    except (OSError, ValueError, KeyError) as error:
        status = str(error)
    print(status)  # the engine keeps it with the container's health
    return 0 if status == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
