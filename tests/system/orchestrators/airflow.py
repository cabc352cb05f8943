"""Airflow on one machine: stages as its processes, or as containers of the compose stack; cron beside it."""

from tests.support.embedded import embedded
from tests.support.nightly import Nightly
from tests.system.kit.verdict import RefutedError, require
from tests.system.orchestrators.ground import Ground, Went, need_engine, way
from tools.airflow_api import AirflowApi
from tools.compose.stack import THIRD_PARTY, Stack, build_missing

DAG = "batch_image_inference"
KNOWN_SECONDS = 120.0  # until Airflow has read the DAG
SECONDS = 600.0  # for one run of it
PROJECT = "imagebatch-orchestrators"


@way
def airflow_processes(ground: Ground) -> Went:
    """Airflow, LocalExecutor, a process per stage (`make up`)."""
    folder = ground.folder_of("airflow-processes")
    with embedded(folder, {"IMAGEBATCH_ALLOWED_ROOTS": str(ground.photographs)}) as airflow:
        seen = _succeed(airflow, ground, str(ground.photographs))
    (table,) = (folder / "runs").glob("*/output/predictions.csv")
    return Went(table.read_bytes(), seen)


@way
def airflow_containers(ground: Ground) -> Went:
    """Airflow, DockerOperator, a container per stage (`docker compose up`)."""
    stack = _stack(ground)
    seen = _succeed(stack.log_in(), ground, "/data/inputs")
    (path,) = stack.tool("sh", "-c", "ls /data/runs/batch*/output/predictions.csv").split()
    return Went(stack.read(path), seen)


@way
def docker_and_cron(ground: Ground) -> Went:
    """The whole batch in one container that cron starts, beside the stack's model server."""
    stack = _stack(ground)
    nightly = Nightly(ground.folder_of("cron"), stack, "cron")
    done = nightly("--input=/data/inputs", f"--shard-size={ground.shard_size}")
    require(done.returncode == 0, f"it ended with {done.returncode}: {done.stderr[-300:]}")
    return Went(stack.read("/data/runs/cron/output/predictions.csv"), "one container")


def _stack(ground: Ground) -> Stack:
    """Start the compose stack once for both ways; the suite's end takes it down."""
    need_engine()
    stack = Stack(PROJECT)
    if PROJECT not in ground.shared:
        build_missing()
        if stack.file.exists():
            stack.down()
            stack.file.unlink()
        stack.prepare({"IMAGEBATCH_DOCKER_INPUTS": str(ground.photographs)}, THIRD_PARTY)
        ground.at_end.callback(stack.down)
        stack.up()
        ground.shared.add(PROJECT)
    return stack


def _succeed(airflow: AirflowApi, ground: Ground, images: str) -> str:
    airflow.wait_for_dag(DAG, KNOWN_SECONDS)
    started = airflow.trigger(DAG, {"input": images, "shard_size": ground.shard_size})
    state = airflow.wait(started, SECONDS)
    tasks = airflow.tasks(started)
    if state != "success":
        failed = [task for task in tasks if task["state"] in {"failed", "up_for_retry"}]
        lines = airflow.log_lines(started, failed[0])[-5:] if failed else []
        raise RefutedError(f"the run is {state}: {' '.join(lines)[-500:]}")
    shards = sum(task["task_id"] == "score" for task in tasks)
    return f"{len(tasks)} tasks, {shards} of them shards"
