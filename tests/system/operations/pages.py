"""Part `pages` of `make operations-test`: the commands of how-to pages, run as they stand; what they promise.

A page's commands are its fenced `bash` blocks, by the heading that they stand under. They run in the folder
of the stack, by bash, and stop at the first that fails.
"""

import re
import time
from collections.abc import Callable
from functools import partial

from tests.system.kit.scenario import Scenario, described
from tests.system.kit.verdict import Seen, require
from tests.system.operations.stack import DAG, Stack, folder_name
from tools.airflow_api import AirflowApi, AirflowError
from tools.paths import ROOT, say

HOW_TO = ROOT / "docs" / "how-to"
ASKED = {"limit": 64, "shard_size": 64}
PATIENCE = 900.0
PARTS = ("imagebatch", "imagebatch-airflow", "imagebatch-serving", "imagebatch-tracking")
SETTINGS = ("IMAGE", "AIRFLOW_IMAGE", "SERVING_IMAGE", "TRACKING_IMAGE")
AGE = "find /data/runs/{run} -type f -exec touch -d '{days} days ago' {{}} +"
ONE = "/data/inputs/solar-cells/images/cell0001.png"  # an input that no other page scores


def commands(page: str) -> dict[str, str]:
    """Read a page's commands.

    Args:
        page: file name below docs/how-to, without `.md`.

    Returns:
        All `bash` blocks under a heading, joined, by heading, in the order of the page.
    """
    found: dict[str, str] = {}
    for section in re.split(r"^## ", (HOW_TO / f"{page}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[
        1:
    ]:
        blocks = re.findall(r"^```bash\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[section.partition("\n")[0]] = "".join(blocks)
    return found


def follow(stack: Stack, page: str, heading: str, before: str = "") -> str:
    """Run what stands under a heading.

    Args:
        stack: where.
        page: of docs/how-to.
        heading: the section's.
        before: shell text that a person's own decision would be (a variable).

    Returns:
        What the commands printed.
    """
    begun = time.monotonic()
    said = stack.run("bash", "-euo", "pipefail", "-c", f"{before}\n{commands(page)[heading]}")
    say(f"{page}: {heading}: {time.monotonic() - begun:.0f} s")
    return said


def score(stack: Stack) -> str:
    """Score a few photographs, and give the run's id."""
    run = stack.trigger(**ASKED)
    require(stack.wait(run, PATIENCE) == "success", f"{run} is {stack.state(run)}")
    return run


def score_and_age(stack: Stack, name: str, days: int) -> str:
    """Score a photograph in one process, without Airflow, as if it had been days ago."""
    stack.tool("imagebatch", "run", f"--input={ONE}", f"--run-id={name}")
    stack.tool("sh", "-c", AGE.format(run=name, days=days))
    return name


def operate(stack: Stack) -> None:
    """The newest result is fetched, whole."""
    score(stack)
    follow(stack, "operate", "Fetch a result")
    lines = (stack.folder / "predictions.csv").read_text().splitlines()
    require(len(lines) == 1 + ASKED["limit"], f"predictions.csv has {len(lines)} lines")


def backup(stack: Stack) -> None:
    """Everything is lost, restored, and proven, and Airflow knows the run again."""
    runs = stack.api(f"/dags/{DAG}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    run = str(runs[0]["dag_run_id"]) if runs else score(stack)
    follow(stack, "backup", "Back up")
    stack.compose("--profile", "tools", "down", "--volumes")
    (stack.folder / ".env").unlink()
    follow(stack, "backup", "Restore")
    said = follow(stack, "backup", "Prove it")
    require(folder_name(run) in said, f"{run} is not among what was proven")
    stack.forget_login()
    require(stack.state(run) == "success", "Airflow does not know the run any more")


def upgrade(stack: Stack) -> None:
    """New images run, a batch succeeds with them, and the old ones come back with the database of before."""
    for part, setting in zip(PARTS, SETTINGS, strict=True):
        now = stack.settings.get(f"IMAGEBATCH_{setting}", f"{part}:latest")
        stack.run("docker", "image", "tag", now, f"{part}:operations-test")
    follow(stack, "upgrade", "Upgrade", "NEXT=operations-test")
    running = stack.run(
        "docker", "ps", "--filter", f"name=^{stack.project}-", "--format", "{{.Image}}"
    ).split()
    require("imagebatch-airflow:operations-test" in running, f"running are {running}")
    later = score(stack)
    follow(stack, "upgrade", "Roll back")
    require("operations-test" not in (stack.folder / ".env").read_text(), "the new images are still named")
    stack.forget_login()
    require(stack.state(later) == "away", "the database is not the one of before")
    stack.run("docker", "image", "rm", *(f"{part}:operations-test" for part in PARTS), check=False)


def secrets(stack: Stack) -> None:
    """Every secret is another one afterwards, an old login is refused, and a batch succeeds."""
    before = stack.settings
    for heading in commands("secrets"):
        follow(stack, "secrets", heading)
    stack.forget_login()
    secret = re.compile(r"PASSWORD|SECRET|FERNET")
    same = [name for name in before if secret.search(name) and stack.settings[name] == before[name]]
    require(not same, f"not changed: {same}")
    try:
        AirflowApi(stack.airflow, "admin", before["AIRFLOW_ADMIN_PASSWORD"])
    except AirflowError as error:
        answer = error.status
    else:
        answer = 200
    require(answer == 401, f"the old password is answered with {answer}")
    score(stack)


def disk_full(stack: Stack) -> None:
    """Of two runs that are old the newer success stays, and the bytes of the other are told."""
    old, newest = score_and_age(stack, "old", 41), score_and_age(stack, "newest", 40)
    said = ""
    for heading in commands("disk-full"):
        said += follow(stack, "disk-full", heading)
    told = [line for line in said.splitlines() if '"removed"' in line]
    require(bool(told) and '"removed": 1, ' in told[-1], f"prune said {told}")
    left = stack.in_runs("ls", "/data/runs").split()
    require(old not in left, "the old run is still there")
    require(newest in left, "the newest success is gone")


def _play(page: Callable[[Stack], None], stack: Stack) -> Seen:
    page(stack)
    return Seen("as it says")


PAGES = [
    Scenario(**described(page) | {"act": partial(_play, page)})
    for page in (operate, disk_full, backup, upgrade, secrets)
]
