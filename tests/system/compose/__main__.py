"""`make compose-test`: the compose stack from nothing to a proven table, and down again.

Builds the images, starts the stack as a project of its own, scores the demo's photographs with one container
per stage, compares the bytes with those that the process operator gives on this machine, and runs
tests/system/compose against the running stack. Needs the demo's photographs and archive, and makes them
where they are missing.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.embedded import embedded
from tools.airflow_api import AirflowApi
from tools.compose import images
from tools.compose.stack import Stack, material
from tools.dev import tests
from tools.paths import ROOT, Argv, fail, program, say, step

DAG = "batch_image_inference"
IMAGES = 2624
SECONDS = 900.0  # for one run of the DAG
KNOWN_SECONDS = 120.0  # until Airflow has read it


def main() -> int:
    """Run every step, and end with the stack down whatever happens.

    Returns:
        0 if all held, else 1.
    """
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--project", default="imagebatch-test")
    options.add_argument("--keep", action="store_true", help="leave the stack running")
    options.add_argument("--no-cache", action="store_true", help="build the images from their bases")
    options.add_argument("--no-build", action="store_true", help="take the images that are there")
    options.add_argument("-k", default="", metavar="NAMES", help="of tests/system/compose these only")
    chosen = options.parse_args()
    begun = time.monotonic()
    stack = Stack(chosen.project)
    material()
    wanted = [] if chosen.no_build else [image for image in images.IMAGES if image.name in images.SERVED]
    if any(images.build(image, cache=not chosen.no_cache) for image in wanted):
        return 1
    with step("settings and stand-ins"):
        if stack.file.exists():
            stack.down()
            stack.file.unlink()
        stack.prepare()
    try:
        with step("docker compose up --wait"):
            stack.up()
        with step("the DAG, a container per stage"):
            run_id, product = scored(stack)
        with step("the DAG, a process per stage"):
            compare(product, reference())
        with step("tests/system/compose"):
            attack(stack, run_id, chosen.k)
    finally:
        if not chosen.keep:
            with step("docker compose down"):
                stack.down()
    if not chosen.keep and stack.left():
        fail(f"left on the engine: {', '.join(stack.left())}", 1)
    say(f"compose-test passed in {time.monotonic() - begun:.0f} s")
    return 0


def scored(stack: Stack) -> tuple[str, bytes]:
    """Run the DAG on the photographs.

    Returns:
        The name of the run's folder, and its CSV.
    """
    succeed(stack.log_in(), {})
    (folder,) = stack.tool("sh", "-c", "ls /data/runs/*/_SUCCESS | cut -d/ -f4").split()
    output = f"/data/runs/{folder}/output"
    certificate = json.loads(stack.read(f"{output}/certificate.json"))
    counts = certificate["counts"]
    if (counts["listed"], counts["predicted"], certificate["balanced"]) != (IMAGES, IMAGES, True):
        fail(f"the certificate says {counts}, not {IMAGES} predicted", 1)
    say(f"certificate: {counts}")
    stack.tool("imagebatch", "verify", f"--run-id={folder}")
    return folder, stack.read(f"{output}/predictions.csv")


def succeed(airflow: AirflowApi, conf: dict[str, object]) -> None:
    """Trigger the DAG and wait for its success; what failed is printed."""
    airflow.wait_for_dag(DAG, KNOWN_SECONDS)
    started = airflow.trigger(DAG, conf)
    state = airflow.wait(started, SECONDS)
    if state != "success":
        for task in airflow.tasks(started):
            say(f"{task['task_id']} [{task['map_index']}] {task['state']}")
            if task["state"] in {"failed", "up_for_retry"}:
                say("\n".join(airflow.log_lines(started, task)[-15:]))
        fail(f"the run {started.run_id} is {state}", 1)


def reference() -> bytes:
    """Give the CSV of the same DAG on the stack without containers, where each stage is a process."""
    folder = ROOT / "var" / "compose" / "embedded"
    inputs = ROOT / "var" / "data"
    with embedded(folder, {"IMAGEBATCH_ALLOWED_ROOTS": str(inputs)}) as airflow:
        succeed(airflow, {"input": str(inputs / "solar-cells" / "images")})
    newest = max((folder / "runs").glob("*/_SUCCESS"), key=lambda path: path.stat().st_mtime).parent
    return (newest / "output" / "predictions.csv").read_bytes()


def compare(containers: bytes, processes: bytes) -> None:
    """Insist on the same bytes."""
    digests = [hashlib.sha256(content).hexdigest() for content in (containers, processes)]
    if containers != processes:
        for name, content in (("containers", containers), ("processes", processes)):
            (ROOT / "var" / "compose" / f"{name}.csv").write_bytes(content)
        fail("predictions.csv differs: compare var/compose/containers.csv and processes.csv", 1)
    say(f"predictions.csv, {len(containers)} bytes from both: sha256 {digests[0]}")


def attack(stack: Stack, run_id: str, names: str) -> None:
    """Run the tests that look at the running stack and attack it from inside; their counts are printed."""
    python: Argv = [program("airflow", "python"), "-Im", "pytest", "-c", "airflow/pyproject.toml"]
    told = {"IMAGEBATCH_COMPOSE_PROJECT": stack.project, "IMAGEBATCH_COMPOSE_RUN": run_id}
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.xml")
        command = [*python, "--rootdir", ".", f"--junitxml={report}", "tests/system/compose"]
        command += ["-k", names] if names else []
        code = subprocess.run(command, cwd=ROOT, env=os.environ | told, check=False).returncode
        failed = tests.add(totals, report, code)
    say(f"{totals['passed']} passed, {totals['failed']} failed in tests/system/compose")
    if code:
        fail(f"tests/system/compose: {', '.join(failed)}", 1)


if __name__ == "__main__":
    sys.exit(main())
