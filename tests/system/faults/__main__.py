"""`make monitoring-test`: break the platform, and see the right alert arrive, and no other."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

# First of all: what is imported below reads the folder and the port that this chooses.
from tests.system.faults.place import FOLDER, PHOTOGRAPHS

# isort: split
from tests.support import children
from tests.system.faults import airflow, runs, servers
from tests.system.faults.fault import ALL, Fault, Told, play
from tests.system.faults.page import write_page
from tests.system.faults.panels import silent_panels
from tests.system.faults.platform_under_watch import Platform
from tests.system.faults.sinks import mail_text
from tests.system.kit.suite import Judge, Suite, run
from tests.system.kit.verdict import Verdict
from tools.paths import say

AT_ONCE = 6  # runs that share two cores without becoming late by that alone
PARTS = [module.__name__.rpartition(".")[2] for module in (runs, servers, airflow)]


class Faults(Suite[Fault, Told]):
    """Faults, each of which must bring its alert and no other."""

    verb = "monitoring-test"
    text = str(__doc__)
    scenarios = sorted(ALL, key=lambda one: PARTS.index(one.part))
    folder = FOLDER

    @contextmanager
    def system(self, asked: argparse.Namespace) -> Iterator[None]:
        """Start everything that watches, and what is watched."""
        del asked
        self._complaints: list[str] = []
        FOLDER.mkdir()
        try:
            self._platform = Platform(FOLDER, PHOTOGRAPHS)
            self._begun = time.time()
            yield
            self._platform.close()
        finally:
            children.end_all()

    def act(self, scenario: Fault) -> Told:
        """Make a fault, and wait for its alert."""
        return play(self._platform, scenario)

    def play(self, scenarios: Sequence[Fault], judged: Judge[Fault, Told]) -> list[Verdict[Told]]:
        """Faults of one run each at the same time, the others one after the other."""
        of = {part: [one for one in scenarios if one.part == part] for part in PARTS}
        with ThreadPoolExecutor(AT_ONCE) as threads:
            verdicts = [*threads.map(judged, of["runs"]), *map(judged, of["servers"])]
        if of["airflow"]:
            self._complaints += airflow.deadlines_and_lineage(self._platform)
            say(f"a DAG's deadlines and lineage: {self._complaints or 'all told, once'}")
            verdicts += map(judged, of["airflow"])
        return verdicts

    def finish(self, verdicts: Sequence[Verdict[Told]], *, complete: bool) -> list[str]:
        """Ask every receiver and every panel, and write docs/reference/alerts.md."""
        complaints = list(self._complaints)
        if complete:
            complaints += _receivers(self._platform)
            complaints += silent_panels(self._platform, self._begun, time.time())
            if not complaints and not any(one.error for one in verdicts):
                write_page(verdicts, time.time() - self._begun)
        return complaints

    def stop(self, *_: object) -> None:
        """End at once: the threads that make faults would be waited for."""
        children.end_all()
        os._exit(143)


def _receivers(platform: Platform) -> list[str]:
    """What Slack, the pager, the mailbox and the dead man's switch did not hear."""
    posts = platform.webhooks.posts
    told = {name: len(posts.get(f"/{name}", [])) for name in ("slack", "on-call", "deadman")}
    told["mailbox"] = len(platform.mailbox.mails)
    complaints = [f"{name} heard nothing" for name, count in told.items() if not count]
    say(f"messages: {told}")
    for headers, _ in posts.get("/on-call", []):
        if headers.get("Authorization") != "Bearer token-of-the-pager":
            complaints.append("the pager was called without its token")
    # From Alertmanager, and from a DAG's deadlines.
    texts = [str(body.get("attachments", [body])[0]["text"]) for _, body in posts.get("/slack", [])]
    texts += map(mail_text, platform.mailbox.mails)
    complaints += [f"no runbook in {text[:80]}" for text in texts if "runbook.md#imagebatch" not in text]
    if platform.webhooks.firing("", 0):
        complaints.append("an alert was about nothing")
    return complaints


if __name__ == "__main__":
    sys.exit(run(Faults(), sys.argv[1:]))
