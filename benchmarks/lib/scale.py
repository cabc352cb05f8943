"""What a night of any size takes, by arithmetic from measured figures.

Every constant comes from `benchmarks/results/` or is named here with where it was counted; prices are list
prices, which change: they are arguments.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from benchmarks.lib.published import RESULTS

MOST_SHARDS = 1024  # task instances that one Airflow task maps to (airflow/airflow.env)
MOST_PER_SHARD = 100_000  # images (dags/imagebatch_dags/pipeline.py)
DEFAULT_SHARD = 4096  # images
TASKS = 8  # of a run one after the other; the shards' own starts hide behind the scoring of others
PART = 256  # images that `score` keeps in one file of an object store
LISTED = 1000  # keys that an object store returns to one LIST


@dataclass(frozen=True)
class Line:
    """Seconds of a stage: `start` for any size, and `each` for an image."""

    start: float
    each: float

    def seconds(self, images: float) -> float:
        """Add up what it takes for so many images."""
        return self.start + self.each * images


@dataclass(frozen=True)
class Constants:
    """What has been measured on one machine.

    Attributes:
        rate: Images per second and virtual core that `score` does, model server included.
        preprocess: Reading, hashing and looking at files of about 50 kB.
        check_manifest: As all checks, in one process.
        check_predictions: The same.
        postprocess: Writing the CSV and the certificate.
        task: Seconds from a task's being due to its process, and from its end to the next one's being due.
    """

    rate: float
    preprocess: Line
    check_manifest: Line
    check_predictions: Line
    postprocess: Line
    task: float

    def single(self, images: float) -> float:
        """Seconds of the stages of a run that are one process each."""
        stages = (self.preprocess, self.check_manifest, self.check_predictions, self.postprocess)
        return sum(stage.seconds(images) for stage in stages)


def measured() -> Constants:
    """Read the constants out of the published results."""
    memory, growth, overhead = (_result(name) for name in ("memory", "growth", "dag-overhead"))
    stages = {row["stage"]: row for row in memory["stages"]}

    def line(stage: str) -> Line:
        row = stages[stage]
        each = (row["large_seconds"] - row["small_seconds"]) / (memory["large"] - memory["small"])
        return Line(max(0.0, row["small_seconds"] - each * memory["small"]), each)

    small = [row["stages"]["preprocess"] for row in growth["rows"] if row["images"] == growth["small"]]
    large = [row["stages"]["preprocess"] for row in growth["rows"] if row["images"] == growth["large"]]
    first, last = sum(small) / len(small), sum(large) / len(large)
    each = (last - first) / (growth["large"] - growth["small"])
    cores = int(growth["machine"].partition(" cores")[0].rpartition(" ")[2])
    waits = [task["waiting"] + task["starting"] for task in overhead["tasks"]]
    return Constants(
        rate=growth["score"]["large"] / cores,
        preprocess=Line(first - each * growth["small"], each),
        check_manifest=line("check manifest"),
        check_predictions=line("check predictions"),
        postprocess=line("postprocess"),
        task=sum(waits) / len(waits),
    )


@dataclass(frozen=True)
class Fleet:
    """Machines that score.

    Attributes:
        machines: How many.
        cores: Virtual cores of each.
        shards: Shards that each works on at once.
    """

    machines: int
    cores: int = 2
    shards: int = 2

    @property
    def slots(self) -> int:
        """Shards that are scored at once."""
        return self.machines * self.shards


@dataclass(frozen=True)
class Plan:
    """How a night is cut.

    Attributes:
        images: In all.
        runs: DAG runs that it needs, side by side, each of a pipeline of its own.
        shard_size: Images per shard.
        shards: Per run.
    """

    images: int
    runs: int
    shard_size: int
    shards: int


def cut(images: int, slots: int, constants: Constants, seconds: float) -> Plan:
    """Cut a night so that Airflow maps it, all slots have work, and no single core holds everything up.

    Several runs, side by side, where one is more than Airflow maps or where what a run does on one core
    would take more than a quarter of the night. Shards of the default size as long as Airflow maps that many;
    larger ones beyond, and smaller ones where slots would stand idle.

    Args:
        images: In all.
        slots: Shards that are scored at once.
        constants: Measured.
        seconds: The night's length.
    """
    alone = constants.single(images)
    runs = max(math.ceil(images / (MOST_SHARDS * MOST_PER_SHARD)), math.ceil(4 * alone / seconds), 1)
    each = math.ceil(images / runs)
    size = min(MOST_PER_SHARD, max(math.ceil(each / MOST_SHARDS), min(DEFAULT_SHARD, -(-images // slots))))
    return Plan(images, runs, size, math.ceil(each / size))


@dataclass(frozen=True)
class Estimate:
    """What a night takes.

    Attributes:
        seconds: From the trigger to the last success.
        scoring: Of these, in `score`.
        single: Of these, in stages that each run does on one core: preprocess, checks, postprocess.
        tail: Of these, in which some machines have no shard left.
    """

    seconds: float
    scoring: float
    single: float
    tail: float


def estimate(plan: Plan, fleet: Fleet, constants: Constants) -> Estimate:
    """Add it up.

    Args:
        plan: How the images are cut.
        fleet: What scores them.
        constants: Measured.
    """
    rate = fleet.cores * constants.rate
    # Machines take the next shard as they are free: some have none while the last ones are scored.
    share = plan.runs * plan.shards / fleet.machines
    tail = (math.ceil(share) - share) * plan.shard_size / rate
    work = plan.images / (fleet.machines * rate) + tail
    single = constants.single(plan.images / plan.runs)
    return Estimate(single + work + TASKS * constants.task, work, single, tail)


def requests(plan: Plan) -> dict[str, float]:
    """Count a night's requests to an object store, by what they cost: `read` (GET) and `write` (PUT, LIST).

    As counted before a real S3 server (cases/store_requests.py, docs/how-to/object-stores.md): an image is
    read by `preprocess` and by `score`, and its input listed twice.
    """
    shards = plan.shards * plan.runs
    parts = max(shards, plan.images / PART)
    return {
        "read": 2 * plan.images + 11 * shards + 3 * parts,
        "write": 2 * plan.images / LISTED + 6 * shards + parts,
    }


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
