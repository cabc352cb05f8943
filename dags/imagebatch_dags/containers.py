"""Containers of stages that are there: found by their labels, stopped, removed."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from airflow.providers.docker.hooks.docker import DockerHook
from docker import APIClient
from docker.errors import APIError, NotFound

from imagebatch_dags.orphans import StageContainer, read
from imagebatch_dags.places import INSTALLATION

log = logging.getLogger(__name__)

# Seconds between the polite signal and SIGKILL: Airflow kills a task that takes longer than five to stop.
GRACE_SECONDS = 3


def engine_client() -> APIClient:
    """Connect to the engine that the stages run on: `DOCKER_HOST`, else this machine's."""
    # No connection of Airflow's: DockerOperator takes the engine's address from the same variable.
    address = os.environ.get("DOCKER_HOST") or "unix://var/run/docker.sock"
    return DockerHook(docker_conn_id=None, base_url=address).api_client


def stage_containers(client: APIClient, installation: str) -> list[StageContainer]:
    """List the containers of an installation, running or not.

    Args:
        client: of the engine.
        installation: its name, the label of all its containers.

    Returns:
        Those whose labels are whole; a container that merely looks like one of ours is left alone.
    """
    labelled = client.containers(all=True, filters={"label": f"{INSTALLATION}={installation}"})
    return [found for each in labelled if (found := _listed(each))]


def end(client: APIClient, container: StageContainer, reason: str) -> bool:
    """Stop and remove one container.

    Args:
        client: of the engine.
        container: which.
        reason: for the log.

    Returns:
        Whether it was there, and is gone now.
    """
    try:
        client.stop(container.id, timeout=GRACE_SECONDS)
        client.remove_container(container.id, v=True, force=True)
    except NotFound:
        return False
    except APIError as error:
        log.warning("Container %s is not removed: %s", container, error.explanation or error)
        return False
    log.warning("Stopped and removed container %s: %s", container, reason)
    return True


def _listed(found: Mapping[str, Any]) -> StageContainer | None:
    name = str(next(iter(found["Names"] or []), "")).removeprefix("/")
    return read(found.get("Labels") or {}, name, found["State"], int(found["Created"])) if name else None
