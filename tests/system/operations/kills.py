"""`make operations-test`, second part: kill each piece of the compose stack in the middle of a run.

A run that nobody disturbs comes first. Then, for each scenario, the same input is scored again, a piece is
killed with SIGKILL while shards are being scored, and the run must end with the same bytes: by itself, or
after one clear of its failed tasks. The table goes into docs/reference/reliability-containers.md.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.system.operations.killing import engine, service, stage_container, workers
from tests.system.operations.orphan import Abandoned
from tests.system.operations.stack import ROOT, Stack, folder_name, own_stack

PAGE = ROOT / "docs" / "reference" / "reliability-containers.md"
ASKED = {"limit": 1024, "shard_size": 128}
BEFORE_THE_KILL = 1  # shards done; eight in all, four at a time
PATIENCE = 1500.0  # seconds: the tasks of a dead scheduler are noticed by their heartbeats, after two minutes


@dataclass(frozen=True)
class Scenario:
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
        scenario: which.
        ended: `by itself` or `after one clear`.
        seconds: from the kill to the end.
        attempts: the most tries that one task took.
        same: whether the CSV has the undisturbed run's bytes.
        orphans: stage containers left at its end.
    """

    scenario: str
    ended: str
    seconds: float
    attempts: int
    same: bool
    orphans: int


ABANDONED = Abandoned()
SCENARIOS = [
    Scenario(
        "a container that scores a shard", stage_container, "the task is retried, the shard continues", 2
    ),
    Scenario(
        "the processes that run tasks, not their containers",
        workers,
        "the executor notices; the tasks are retried",
        2,
    ),
    Scenario(
        "the same processes, while an attempt that Airflow cannot see works on one shard",
        ABANDONED.kill,
        "they are marked as failed; `imagebatch_orphans` stops what they left; that attempt ends with 75",
        2,
        ABANDONED.check,
    ),
    Scenario(
        "the scheduler with its executor",
        service("airflow-scheduler"),
        "it restarts and takes its tasks up again",
    ),
    Scenario("PostgreSQL", service("postgres"), "it recovers from its log; Airflow reconnects"),
    Scenario("TorchServe", service("torchserve"), "it restarts; the scorer waits for it"),
    Scenario("the container engine", engine, "everything restarts with it; see below"),
]


def main(argv: list[str]) -> int:
    """Run the scenarios on a stack of their own.

    Args:
        argv: parts of scenario names; none = all.

    Returns:
        0 if every run ended with the same bytes, else 1.
    """
    chosen = [each for each in SCENARIOS if not argv or any(part in each.name for part in argv)]
    with own_stack("imagebatch-kills") as stack:
        return kill_all(stack, possible(chosen))


def possible(scenarios: list[Scenario]) -> list[Scenario]:
    """Leave out what is not allowed: the engine is killed only where ENGINE_START starts it again."""
    return [each for each in scenarios if each.kill is not engine or "ENGINE_START" in os.environ]


def kill_all(stack: Stack, scenarios: list[Scenario]) -> int:
    """Run scenarios on a running stack, print what became of them, and write it into the page.

    Returns:
        0 if every run ended with the same bytes, else 1.
    """
    expected = undisturbed(stack)
    outcomes = []
    for each in scenarios:
        outcomes.append(disturb(stack, each, expected))
        write_page(rows(outcomes[-1:]))
    print(table(rows(outcomes)))
    return 0 if all(each.same for each in outcomes) else 1


def undisturbed(stack: Stack) -> str:
    """Give the digest of the CSV that nobody disturbs.

    Raises:
        RuntimeError: that run did not succeed.
    """
    begun = time.monotonic()
    run = stack.trigger(**ASKED)
    if stack.wait(run, PATIENCE) != "success":
        raise RuntimeError(f"the undisturbed run did not succeed: {stack.tasks(run)}")
    print(f"undisturbed: {time.monotonic() - begun:.0f} s", flush=True)
    return digest(stack, run)


def disturb(stack: Stack, scenario: Scenario, expected: str) -> Outcome:
    """Run one scenario."""
    run = stack.trigger(**ASKED)
    wait_until_scoring(stack, run)
    begun = time.monotonic()
    scenario.kill(stack)
    state, ended = stack.wait(run, PATIENCE), "by itself"
    if state != "success":
        failed = {each["task_id"] for each in stack.tasks(run) if each["state"] == "failed"}
        ended = f"after one clear of {', '.join(sorted(failed))}"
        stack.clear_failed(run)
        state = stack.wait(run, PATIENCE)
    seconds = time.monotonic() - begun
    scenario.check(stack)
    same = state == "success" and digest(stack, run) == expected
    attempts = max((each["try_number"] for each in stack.tasks(run)), default=0)
    if attempts < scenario.tries:
        raise RuntimeError(f"{scenario.name}: the kill hit nothing: no task took {scenario.tries} tries")
    outcome = Outcome(
        scenario.name, ended if state == "success" else state, seconds, attempts, same, orphans(stack)
    )
    print(outcome, flush=True)
    return outcome


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
        if stack.state(run) in {"success", "failed"}:
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


def rows(outcomes: list[Outcome]) -> dict[str, str]:
    """Write each outcome as a line of a Markdown table, by its scenario."""
    expected = {each.name: each.then for each in SCENARIOS}
    return {
        each.scenario: f"| {each.scenario} | {expected[each.scenario]} | {each.ended} | {each.seconds:.0f} "
        f"| {each.attempts} | {'yes' if each.same else '**no**'} | {each.orphans} |"
        for each in outcomes
    }


def table(lines: dict[str, str]) -> str:
    """Put lines together, in the order of the scenarios."""
    columns = (
        "killed, what happens, the run ended, seconds after, most tries of a task, same CSV, containers left"
    )
    names = columns.split(", ")
    known = [lines[each.name] for each in SCENARIOS if each.name in lines]
    return "\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *known])


def write_page(made: dict[str, str]) -> None:
    """Put lines into the table between the page's markers; those of other scenarios stay as they are."""
    before, marker, rest = PAGE.read_text(encoding="utf-8").partition("<!-- kills: generated -->\n")
    old, end, after = rest.partition("<!-- end -->")
    if not (marker and end):
        raise SystemExit(f"{PAGE.name} has no place for the table")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines()}
    PAGE.write_text(f"{before}{marker}{table(lines | made)}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
