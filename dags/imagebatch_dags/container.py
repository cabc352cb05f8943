"""What every stage's container is: its image, its limits, its mounts, its labels."""

import os
from typing import Any

from docker.types import Mount

from imagebatch_dags.places import INPUTS, KEYS, MODELS, RUNS, labels

# Every container of a stage is named this and 32 hexadecimal digits, and is addressed by that name alone: the
# engine's proxy (containers/engine-proxy.cfg) lets no call about another container through.
NAME = "imagebatch-stage-"

# Variables of the worker that every container gets, and that nobody sees in Airflow, plans or logs.
SECRETS = "IMAGEBATCH_DOCKER_SECRETS"

CPU_PERIOD = 100_000  # microseconds; the quota is a share of it
MOST_PROCESSES = 512  # threads count too: Arrow, OpenBLAS and the scorer start a few dozen


def stage_container() -> dict[str, Any]:
    """Build the operator's arguments that every stage shares, from the environment.

    `IMAGEBATCH_DOCKER_IMAGE`, `_NETWORK`, `_MEMORY`, `_CPUS`, `_TMP`, `_USER`, and for the mounts `_INPUTS`,
    `_MODELS`, `_KEYS`, `_RUNS`: a volume's name, or an absolute path of the engine's machine.

    Returns:
        Keyword arguments of `DockerStageOperator`; the container runs as an ordinary user, sees the images,
        the models and the keys read-only, and can write only to the runs and to a bounded `/tmp` in memory.

    Raises:
        ValueError: `IMAGEBATCH_DOCKER_CPUS` is not a number above 0.
    """
    env = os.environ.get
    return {
        "image": env("IMAGEBATCH_DOCKER_IMAGE", "imagebatch:latest"),
        "network_mode": env("IMAGEBATCH_DOCKER_NETWORK", "imagebatch"),
        "mem_limit": env("IMAGEBATCH_DOCKER_MEMORY", "2g"),
        "cpu_limit": _cpus(env("IMAGEBATCH_DOCKER_CPUS", "2")),
        "tmp_size": env("IMAGEBATCH_DOCKER_TMP", "512m"),
        "user": env("IMAGEBATCH_DOCKER_USER", "10001:10001"),
        "mounts": [
            _mount(env("IMAGEBATCH_DOCKER_INPUTS", "imagebatch-inputs"), INPUTS, read_only=True),
            _mount(env("IMAGEBATCH_DOCKER_MODELS", "imagebatch-models"), MODELS, read_only=True),
            _mount(env("IMAGEBATCH_DOCKER_KEYS", "imagebatch-keys"), KEYS, read_only=True),
            _mount(env("IMAGEBATCH_DOCKER_RUNS", "imagebatch-runs"), RUNS, read_only=False),
        ],
        "mount_tmp_dir": False,  # its folder is the worker's, which the engine cannot see
        "auto_remove": "never",  # execute() removes it, after reading the exit code
        "privileged": False,
        "log_opts_max_size": "10m",
        "log_opts_max_file": "3",
        "labels": labels(),
    }


def secrets() -> dict[str, str]:
    """Read what stages need and no page may show: a token, credentials of stores, a database's address.

    `IMAGEBATCH_DOCKER_SECRETS` names the variables, with commas. They are read when a container starts, so
    that they are in no serialized DAG and in no rendered template.

    Returns:
        Their values, by name.

    Raises:
        ValueError: one is named and not set.
    """
    names = [name.strip() for name in os.environ.get(SECRETS, "").split(",") if name.strip()]
    if missing := [name for name in names if name not in os.environ]:
        raise ValueError(
            f"{SECRETS} names {', '.join(missing)}: set it for Airflow's workers, or take it out"
        )
    return {name: os.environ[name] for name in names}


def confinement(cpu_limit: float, tmp_size: str) -> dict[str, Any]:
    """Build the part of a container's host configuration that DockerOperator has no arguments for.

    Args:
        cpu_limit: cores; more than the machine has is no error.
        tmp_size: of `/tmp`, such as `512m`; it lives in memory and counts against the memory limit.

    Returns:
        Arguments of docker's `create_host_config`.
    """
    return {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "tmpfs": {"/tmp": f"size={tmp_size},mode=1777,noexec,nosuid,nodev"},  # noqa: S108 - inside the container
        "pids_limit": MOST_PROCESSES,
        # Not NanoCpus: the engine refuses more of those than its machine has cores.
        "cpu_period": CPU_PERIOD,
        "cpu_quota": round(cpu_limit * CPU_PERIOD),
    }


def _cpus(text: str) -> float:
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0
    if not 0 < cpus < 10_000:  # noqa: PLR2004 - beyond any machine; also no infinity, no NaN
        raise ValueError(f"IMAGEBATCH_DOCKER_CPUS is {text!r}: set it to a number of cores, such as 2 or 0.5")
    return cpus


def _mount(source: str, target: str, *, read_only: bool) -> Mount:
    return Mount(
        target=target,
        source=source,
        type="bind" if source.startswith("/") else "volume",
        read_only=read_only,
    )
