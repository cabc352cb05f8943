"""Kubernetes, with pods that are processes: no cluster is here, its API and its Jobs are stood in for."""

import json
import os
import time
from pathlib import Path

from tests.support.children import Child
from tests.system.kit.verdict import require
from tests.system.orchestrators.ground import Ground, Went, way
from tools.local.services import base_environment
from tools.paths import ROOT, program

PATIENCE = 900.0  # seconds for a run
LEFT_SECONDS = 60.0  # after a run for its last pod to be gone
# Airflow's own way to run a DAG from its beginning to its end, as tests/system/demo/test_dag_run.py does it.
RUN = """
import json, sys
import batch_image_inference
run = batch_image_inference.dag.test(run_conf=json.loads(sys.argv[1]))
tasks = sorted({(ti.task_id, str(ti.state)) for ti in run.get_task_instances()})
print(json.dumps({"run": run.run_id, "state": str(run.state), "tasks": tasks}))
"""


@way
def kubernetes_pods(ground: Ground) -> Went:
    """Airflow's DAG with `IMAGEBATCH_OPERATOR=kubernetes`: each stage a pod, made by the real client."""
    folder = ground.folder_of("kubernetes-pods")
    kubeconfig, image = folder / "kubeconfig", "imagebatch:latest"
    python = str(program("airflow", "python"))
    own = {name: value for name, value in base_environment().items() if "IMAGEBATCH" not in name}
    serving = [python, "-m", "tests.support.cluster", str(kubeconfig), f"{image}={_programs(folder)}"]
    api = Child(serving, environment=own, log=ground.logs / "kubernetes-api.log", folder=ROOT)
    while not kubeconfig.exists():
        require(api.running, f"the API did not start: {api.err[-500:]}")
        time.sleep(0.1)
    settings = own | ground.settings | _airflow(folder)
    settings |= {
        "KUBECONFIG": str(kubeconfig),
        "IMAGEBATCH_OPERATOR": "kubernetes",
        "IMAGEBATCH_KUBERNETES_IMAGE": image,
        "IMAGEBATCH_KUBERNETES_RUNS": "imagebatch-runs",
        "IMAGEBATCH_RUNS_URI": str(folder / "runs"),
    }
    migrated = Child(
        [str(program("airflow", "airflow")), "db", "migrate"],
        environment=settings,
        log=ground.logs / "kubernetes-migrate.log",
    )
    require(migrated.wait(PATIENCE) == 0, f"Airflow's database: {migrated.err[-500:]}")
    conf = {"input": str(ground.photographs), "shard_size": ground.shard_size}
    log = ground.logs / "kubernetes-pods.log"
    batch = Child([python, "-c", RUN, json.dumps(conf)], environment=settings, log=log, folder=ROOT)
    require(batch.wait(PATIENCE) == 0, f"the DAG did not run: {batch.err[-500:]}")
    told = json.loads(log.with_suffix(".out").read_text("utf-8").strip().splitlines()[-1])
    require(told["state"] == "success", f"the run is {told}")
    deadline = time.monotonic() + LEFT_SECONDS
    while not api.err.endswith("there are 0\n"):
        require(time.monotonic() < deadline, f"pods are left: {api.err[-300:]}")
        time.sleep(0.2)
    pods = api.err.count("made ")
    api.kill()
    (csv,) = (folder / "runs").glob("*/output/predictions.csv")
    return Went(csv.read_bytes(), f"{pods} pods, all deleted; Airflow's run is a success")


@way
def kubernetes_jobs(ground: Ground) -> Went:
    """Three Kubernetes Jobs, one of them a pod per shard, by `deploy/kubernetes/shards/run`."""
    folder = ground.folder_of("kubernetes-jobs")
    programs = _programs(folder)
    kubectl = programs / "kubectl"
    python = program("deploy/kserve", "python")
    kubectl.write_text(f'#!/bin/sh\nexec {python} -I {ROOT}/tests/support/job_controller.py "$@"\n', "utf-8")
    kubectl.chmod(0o755)
    (folder / "state").mkdir()
    told = ground.settings | {
        "IMAGEBATCH_RUNS_URI": str(folder / "runs"),
        "IMAGEBATCH_INPUT": str(ground.photographs),
        "IMAGEBATCH_SHARD_SIZE": str(ground.shard_size),
    }
    environment = {f"KUBECTL_SET_{name}": value for name, value in told.items()}
    environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECTL_REAL": str(program("deploy/kserve", "kubectl")),
        "KUBECTL_STATE": str(folder / "state"),
        "KUBECTL_PROGRAMS": str(programs),
    }
    script = ROOT / "deploy" / "kubernetes" / "shards" / "run"
    batch = Child([str(script), "batch"], environment=environment, log=ground.logs / "kubernetes-jobs.log")
    require(batch.wait(PATIENCE) == 0, f"the script failed: {batch.err[-500:]}")
    shards = len(list((folder / "state").glob("Pod-batch-score-*.json")))
    csv = (folder / "runs" / "batch" / "output" / "predictions.csv").read_bytes()
    return Went(csv, f"3 Jobs, {shards} pods for {shards} shards")


def _programs(folder: Path) -> Path:
    """Make the folder with the programs of the image: the `imagebatch` of this checkout."""
    programs = folder / "image"
    programs.mkdir()
    (programs / "imagebatch").symlink_to(program("pipeline_image", "imagebatch"))
    return programs


def _airflow(folder: Path) -> dict[str, str]:
    """Give an Airflow a home of its own."""
    return {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "PYTHONPATH": str(ROOT / "dags"),
    }
