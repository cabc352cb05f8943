"""Which container of an earlier attempt a retry waits for, instead of starting another.

A worker that is killed leaves its container running, and what that finishes counts: it is the newest attempt
at its shard (docs/adr/0002). The container itself says what it is and how it fares, so nothing is asked that
a killed worker would have had to write down first (docs/adr/0006).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from docker import APIClient
from docker.errors import NotFound

OURS = "IMAGEBATCH_"


@dataclass(frozen=True)
class Work:
    """What a container is to do, and with what.

    Attributes:
        command: program and arguments.
        image: by name.
        image_ids: what the engine has under that name now.
        environment: variables that the container gets, beside those of its image.
    """

    command: list[str]
    image: str
    image_ids: Collection[str]
    environment: dict[str, str]


def is_worth_waiting_for(client: APIClient, name: str, work: Work) -> bool:
    """Tell whether a container does, or has done, what an attempt is about to ask for.

    Args:
        client: of the engine.
        name: of the container.
        work: what is asked for.

    Returns:
        True where it works on exactly that, or has ended with 0. One that is paused, was never started, has
        failed, or has another command, image or variable is not waited for.
    """
    try:
        found = client.inspect_container(name)
    except NotFound:
        return False
    return _fares_well(found["State"]) and _does(found, work)


def _fares_well(state: Mapping[str, Any]) -> bool:
    if state["Running"]:
        return not state["Paused"]
    return state["Status"] == "exited" and state["ExitCode"] == 0 and not state["OOMKilled"]


def _does(found: Mapping[str, Any], work: Work) -> bool:
    config = found["Config"]
    wanted = {f"{name}={value}" for name, value in work.environment.items()}
    has = set(config["Env"] or [])  # the image's own are among them
    return (
        config["Cmd"] == work.command
        and config["Image"] == work.image
        and found["Image"] in work.image_ids
        and wanted <= has
        and {variable for variable in has if variable.startswith(OURS)} <= wanted
    )
