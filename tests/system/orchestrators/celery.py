"""Airflow on several hosts: two Celery workers that share no disk with anybody, photographs and runs on S3.

Each worker is a host of its own (tests/support/hosts.py): killed it is gone with all that it has started, and
its network can be cut. Nobody does anything after a fault: the run must end by itself.
"""

import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from tests.support.celery_airflow import CeleryAirflow
from tests.support.model_server import Wrong
from tests.support.relay import Asked, Relay
from tests.support.store_servers import SeaweedFS
from tests.system.kit.verdict import RefutedError, require
from tests.system.orchestrators.ground import Ground, Went, way
from tools.airflow_api import ENDED, Run
from tools.paths import program

DAG = "on_several_machines"
SHARD = 16  # images: many shards, and on S3 a killed scorer begins its shard anew
# Airflow reads only files that hold both words, airflow and dag.
SOURCE = f"""# An airflow dag.
from imagebatch_dags.factory import build_dag
from imagebatch_dags.pipeline import Pipeline

dag = build_dag(Pipeline(dag_id="{DAG}", input="s3://photographs", schedule="",
                         shard_size={SHARD}, pack_size=4, in_flight=1))
"""
CONCURRENCY = 2
HOSTS = ("worker-a", "worker-b")
CUT_SECONDS = 60.0
DOWN_SECONDS = 15.0
# Within this a disturbed run must have ended: a dead worker is noticed after 120 s, its tasks wait 15 s more.
BOUND = 420.0


class Platform:
    """The Airflow, the store and the way to the model server, shared by all ways of this module.

    Attributes:
        pause: Seconds by which each reply of the model server is late: a run can be met in its middle.
    """

    def __init__(self, ground: Ground) -> None:
        folder = ground.folder_of("celery")
        self.pause = 0.5
        self.store = SeaweedFS(folder / "store", ("photographs", "runs"))
        for name in ground.ids:
            self.store.put(f"photographs/{name}", (ground.photographs / name).read_bytes())
        self.relay = Relay(ground.server.inference, after=self._late)
        stages = {
            **ground.settings,
            **self.store.environment(),
            "IMAGEBATCH_OPERATOR": "process",
            "IMAGEBATCH_BIN": str(program("pipeline_image", "imagebatch")),
            "IMAGEBATCH_API_URL": self.relay.url,
            "IMAGEBATCH_ALLOWED_ROOTS": "s3://photographs",
            "IMAGEBATCH_RUNS_URI": "s3://runs",
            "IMAGEBATCH_SHARED_MEMORY": "false",  # the model server is on another host
        }
        reached = [urlsplit(url).port or 0 for url in (self.store.url, self.relay.url)]
        self.airflow = CeleryAirflow(
            folder / "airflow", SOURCE, stages, reached=reached, workers=HOSTS, concurrency=CONCURRENCY
        )
        self.airflow.api.wait_for_dag(DAG)

    def _late(self, _: Asked, reply: Wrong) -> Wrong:
        reply.pause = self.pause
        return reply

    def started(self, pause: float) -> "Batch":
        """Start a run, on an installation that is whole."""
        self.airflow.ensure()
        self.pause = pause
        return Batch(self)


class Batch:
    """One run of the DAG."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._scored = platform.relay.scored
        self._begun = time.monotonic()
        self._api = platform.airflow.api
        self.run: Run = self._api.trigger(DAG, {})

    def shards(self, *states: str) -> list[dict[str, Any]]:
        """The task instances of `score` in such states."""
        tasks = self._api.tasks(self.run)
        return [each for each in tasks if each["task_id"] == "score" and each["state"] in states]

    def at(self, host: str) -> list[dict[str, Any]]:
        """The shards that a host works on."""
        return [each for each in self.shards("running") if each["hostname"] == host]

    def wait_for(self, what: Callable[[], object], text: str) -> None:
        """Wait for a moment in the run; it must come before the run's end."""
        while not what():
            require(self._api.state(self.run) not in ENDED, f"the run ended before {text}")
            require(time.monotonic() - self._begun < BOUND, f"never {text}")
            time.sleep(0.2)

    def went(self, ground: Ground, seen: str, again: int = 0) -> Went:
        """Wait for its end, which must come by itself.

        Args:
            ground: Whose photographs are scored.
            seen: What was done to it.
            again: Images that may be asked about once more.
        """
        left = BOUND - (time.monotonic() - self._begun)
        state = self._api.wait(self.run, left)
        took = time.monotonic() - self._begun
        if state != "success":
            told = self._platform.airflow.explain(self.run)
            raise RefutedError(f"the run is {state} after {took:.0f} s: {told}")
        shards = self.shards("success")
        self.hosts = Counter(each["hostname"] for each in shards)
        doubled = self._platform.relay.scored - self._scored - len(ground.ids)
        require(0 <= doubled <= again, f"{doubled} images were scored twice, at most {again} may be")
        tries = sum(each["try_number"] - 1 for each in self._api.tasks(self.run))
        folder = self._api.result(self.run, "preprocess")["run_id"]
        csv = self._platform.store.get(f"runs/{folder}/output/predictions.csv")
        spread = ", ".join(f"{name} {self.hosts[name]}" for name in HOSTS)
        told_again = f"{tries} tasks tried again, {doubled} images scored again"
        return Went(csv, f"{seen}shards: {spread}; {told_again}; {took:.0f} s in all")


@cache
def platform_of(ground: Ground) -> Platform:
    """Start everything at the first way that needs it; the suite ends it."""
    return Platform(ground)


@way
def celery(ground: Ground) -> Went:
    """The DAG on two Celery workers, each a host of its own; photographs and runs on S3."""
    batch = platform_of(ground).started(pause=0.5)
    went = batch.went(ground, "")
    require(all(batch.hosts[name] for name in HOSTS), f"one host has scored nothing: {dict(batch.hosts)}")
    return went


@way
def celery_worker_killed(ground: Ground) -> Went:
    """The same; a worker's host loses its power (SIGKILL) in the middle of its shards and stays away."""
    platform = platform_of(ground)
    batch = platform.started(pause=2.0)
    batch.wait_for(lambda: len(batch.at(HOSTS[0])) == CONCURRENCY, "both places of a worker were busy")
    asked = platform.relay.requests
    batch.wait_for(lambda: platform.relay.requests >= asked + 4, "every scorer had an answer")
    lost = len(batch.at(HOSTS[0]))
    platform.airflow.kill_worker(HOSTS[0])
    went = batch.went(ground, f"killed with {lost} shards in hand; ", again=CONCURRENCY * SHARD)
    require(batch.hosts[HOSTS[1]] > batch.hosts[HOSTS[0]], "the other worker has not taken over")
    return went


@way
def celery_redis_restarted(ground: Ground) -> Went:
    """The same; the broker (Redis) is killed in the middle, and started again after 15 s."""
    platform = platform_of(ground)
    batch = platform.started(pause=1.0)
    batch.wait_for(lambda: len(batch.shards("success")) >= CONCURRENCY, "the first shards were done")
    platform.airflow.redis.kill()
    time.sleep(DOWN_SECONDS)  # the fault itself
    platform.airflow.redis.start()
    went = batch.went(ground, "")
    return _and_again(ground, went)


@way
def celery_network_cut(ground: Ground) -> Went:
    """The same; the network between a worker and the broker is cut for a minute amid its shards."""
    platform = platform_of(ground)
    batch = platform.started(pause=2.0)
    batch.wait_for(lambda: len(batch.at(HOSTS[0])) == CONCURRENCY, "both places of a worker were busy")
    wire = platform.airflow.hosts[HOSTS[0]].wires[platform.airflow.broker_port]
    wire.cut()
    time.sleep(CUT_SECONDS)  # the fault itself
    wire.mend()
    went = batch.went(ground, "")
    return _and_again(ground, went)


def _and_again(ground: Ground, went: Went) -> Went:
    """Insist that both workers take shards of the next run: neither has gone deaf."""
    batch = platform_of(ground).started(pause=0.5)
    second = batch.went(ground, "")
    require(all(batch.hosts[name] for name in HOSTS), f"one host is deaf afterwards: {dict(batch.hosts)}")
    require(second.csv == went.csv, "the next run gave another predictions.csv")
    return went
