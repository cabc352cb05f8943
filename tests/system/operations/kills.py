"""Part `kills` of `make operations-test`: kill each piece of the compose stack in the middle of a run.

A run that nobody disturbs comes first. Then, for each scenario, the same input is scored again, a piece is
killed with SIGKILL while shards are being scored, and the run must end with the same bytes: by itself, or
after one clear of its failed tasks. The table goes into docs/reference/reliability-containers.md.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.system.kit.scenario import Scenario
from tests.system.kit.table import head_of, row_of
from tests.system.kit.verdict import Seen, require
from tests.system.operations.killing import engine, service, stage_container, workers
from tests.system.operations.orphan import Abandoned
from tests.system.operations.stack import DAG, Stack, folder_name
from tools.airflow_api import ENDED
from tools.paths import ROOT, say

PAGE = ROOT / "docs" / "reference" / "reliability-containers.md"
ASKED = {"limit": 1024, "shard_size": 128}
BEFORE_THE_KILL = 1  # shards done; eight in all, four at a time
PATIENCE = 1500.0  # seconds: the tasks of a dead scheduler are noticed by their heartbeats, after two minutes
COLUMNS = (
    "killed",
    "what happens",
    "the run ended",
    "seconds after",
    "most tries of a task",
    "same CSV",
    "containers left",
)


@dataclass(frozen=True)
class Kill:
    """One way to disturb a run.

    Attributes:
        name: what is killed.
        kill: does it, and whatever a machine's own supervision would do next.
        then: what is expected to happen, for the table.
        tries: that a task must have taken, at the least; else the kill hit nothing.
        check: looks, after the run's end, whether it did happen; raises RuntimeError if not.
    """

    name: str
    kill: Callable[[Stack], None]
    then: str
    tries: int = 1
    check: Callable[[Stack], None] = lambda _: None


@dataclass(frozen=True)
class Outcome:
    """What became of a disturbed run.

    Attributes:
        killed: what.
        ended: `by itself` or `after one clear`.
        seconds: from the kill to the end.
        attempts: the most tries that one task took.
        same: whether the CSV has the undisturbed run's bytes.
        orphans: stage containers left at its end.
    """

    killed: str
    ended: str
    seconds: float
    attempts: int
    same: bool
    orphans: int


def waited_for(stack: Stack) -> None:
    """See that a second attempt at a shard has waited for the container of the first.

    Raises:
        RuntimeError: none has.
    """
    run = str(stack.api(f"/dags/{DAG}/dagRuns?order_by=-run_after&limit=1")["dag_runs"][0]["dag_run_id"])
    again = [each for each in stack.tasks(run) if each["task_id"] == "score" and each["try_number"] > 1]
    said = [line for each in again for line in stack.log(run, each)]
    if not any("Waiting for container" in line for line in said):
        raise RuntimeError(f"no retry has waited for a container: {said[-20:]}")


ABANDONED = Abandoned()
KILLS = [
    Kill("a container that scores a shard", stage_container, "the task is retried, the shard continues", 2),
    Kill(
        "the processes that run tasks, not their containers",
        workers,
        "the executor notices; the retries wait for the containers",
        2,
        waited_for,
    ),
    Kill(
        "the same processes, while an attempt that Airflow cannot see works on one shard",
        ABANDONED.kill,
        "they are marked as failed; `imagebatch_orphans` stops what they left; that attempt ends with 75",
        2,
        ABANDONED.check,
    ),
    Kill(
        "the scheduler with its executor",
        service("airflow-scheduler"),
        "it restarts and takes its tasks up again",
    ),
    Kill("PostgreSQL", service("postgres"), "it recovers from its log; Airflow reconnects"),
    Kill("TorchServe", service("torchserve"), "it restarts; the scorer waits for it"),
    Kill("the container engine", engine, "everything restarts with it; see below"),
]


class Kills:
    """The scenarios, all compared with one run of the same stack that nobody disturbs."""

    def __init__(self) -> None:
        self._expected = ""

    def scenarios(self) -> list[Scenario]:
        """List what is allowed: the engine is killed only where ENGINE_START starts it again."""
        allowed = [kill for kill in KILLS if kill.kill is not engine or "ENGINE_START" in os.environ]
        return [Scenario(kill.name, kill.then, partial(self._play, kill), "kills") for kill in allowed]

    def _play(self, kill: Kill, stack: Stack) -> Seen:
        self._expected = self._expected or undisturbed(stack)
        outcome = disturb(stack, kill, self._expected)
        write_page(row_by_name(outcome))
        require(outcome.same, f"{outcome} has another CSV than the undisturbed run")
        return Seen(f"{outcome.ended}, {outcome.seconds:.0f} s after; most tries {outcome.attempts}")


def undisturbed(stack: Stack) -> str:
    """Give the digest of the CSV that nobody disturbs.

    Raises:
        RuntimeError: that run did not succeed.
    """
    begun = time.monotonic()
    run = stack.trigger(**ASKED)
    if stack.wait(run, PATIENCE) != "success":
        raise RuntimeError(f"the undisturbed run did not succeed: {stack.tasks(run)}")
    say(f"undisturbed: {time.monotonic() - begun:.0f} s")
    return digest(stack, run)


def disturb(stack: Stack, kill: Kill, expected: str) -> Outcome:
    """Kill something in the middle of a run, and see the run to its end."""
    run = stack.trigger(**ASKED)
    wait_until_scoring(stack, run)
    begun = time.monotonic()
    kill.kill(stack)
    state, ended = stack.wait(run, PATIENCE), "by itself"
    if state != "success":
        failed = {each["task_id"] for each in stack.tasks(run) if each["state"] == "failed"}
        ended = f"after one clear of {', '.join(sorted(failed))}"
        stack.clear_failed(run)
        state = stack.wait(run, PATIENCE)
    seconds = time.monotonic() - begun
    kill.check(stack)
    same = state == "success" and digest(stack, run) == expected
    attempts = max((each["try_number"] for each in stack.tasks(run)), default=0)
    if attempts < kill.tries:
        raise RuntimeError(f"{kill.name}: the kill hit nothing: no task took {kill.tries} tries")
    return Outcome(kill.name, ended if state == "success" else state, seconds, attempts, same, orphans(stack))


def wait_until_scoring(stack: Stack, run: str) -> None:
    """Wait until some shards are done and others are being scored.

    Raises:
        RuntimeError: the run went too fast, or not at all.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done = [
            each for each in stack.tasks(run) if each["task_id"] == "score" and each["state"] == "success"
        ]
        if len(done) >= BEFORE_THE_KILL and stack.stages():
            return
        if stack.state(run) in ENDED:
            break
        time.sleep(0.3)
    unhappy = [
        log for each in stack.tasks(run) if each["state"] == "failed" for log in stack.log(run, each)[-5:]
    ]
    raise RuntimeError(f"{run} is {stack.state(run)}: there was no middle to kill in; {unhappy}")


def digest(stack: Stack, run: str) -> str:
    """Digest a run's CSV, after its certificate has been proven again."""
    name = folder_name(run)
    stack.in_runs("imagebatch", "verify", "--runs-uri=/data/runs", f"--run-id={name}")
    return stack.in_runs("sha256sum", f"/data/runs/{name}/output/predictions.csv").split()[0]


def orphans(stack: Stack) -> int:
    """Count the stage containers that are left."""
    label = f"label=imagebatch.installation={stack.project}"
    return len(stack.run("docker", "ps", "-aq", "--filter", label).split())


def row_by_name(outcome: Outcome) -> dict[str, str]:
    """Write an outcome as a line of a Markdown table, by what was killed."""
    expected = {kill.name: kill.then for kill in KILLS}
    same = "yes" if outcome.same else "**no**"
    figures = (f"{outcome.seconds:.0f}", str(outcome.attempts), same, str(outcome.orphans))
    return {outcome.killed: row_of((outcome.killed, expected[outcome.killed], outcome.ended, *figures))}


def table(lines: dict[str, str]) -> str:
    """Put lines together, in the order of the kills."""
    return head_of(COLUMNS) + "".join(lines[kill.name] for kill in KILLS if kill.name in lines)


def write_page(made: dict[str, str]) -> None:
    """Put lines into the table between the page's markers; those of other kills stay as they are."""
    before, marker, rest = PAGE.read_text(encoding="utf-8").partition("<!-- kills: generated -->\n")
    old, end, after = rest.partition("<!-- end -->")
    if not (marker and end):
        raise SystemExit(f"{PAGE.name} has no place for the table")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines(keepends=True)}
    PAGE.write_text(f"{before}{marker}{table(lines | made)}{end}{after}", encoding="utf-8")
