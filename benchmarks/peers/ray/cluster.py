"""Ray on two cores of this machine, with the variables that the model is read from."""

import os

import ray


def start() -> None:
    """Start it, without what it would show or send to anybody."""
    wanted = ("PEER_", "PYTHONPATH", "OMP_")
    variables = {name: value for name, value in os.environ.items() if name.startswith(wanted)}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        runtime_env={"env_vars": variables},
        _node_ip_address="127.0.0.1",
        object_store_memory=10**9,
    )
