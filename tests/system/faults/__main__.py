"""`make monitoring-test`: break the platform, and see the right alert arrive, and no other."""

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# An Airflow of its own, beside the embedded stack's: `environment` reads these when it is imported.
PHOTOGRAPHS = Path(os.environ.get("IMAGEBATCH_VAR") or ROOT / "var") / "data/solar-cells/images"
FOLDER = Path(tempfile.mkdtemp(prefix="imagebatch-monitoring-"))
os.environ["IMAGEBATCH_VAR"] = str(FOLDER / "var")
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ["IMAGEBATCH_PORT_AIRFLOW"] = str(free.getsockname()[1])

from tests.support import children  # noqa: E402 - reads the variables above
from tests.system.faults import (  # noqa: E402 - reads the variables above
    airflow,
    runs,
    servers,
)
from tests.system.faults.fault import ALL, Fault, Seen, play  # noqa: E402 - reads the variables above
from tests.system.faults.panels import silent_panels  # noqa: E402 - reads the variables above
from tests.system.faults.platform_under_watch import Platform  # noqa: E402 - reads the variables above
from tests.system.faults.sinks import mail_text  # noqa: E402 - reads the variables above
from tests.system.faults.table import write_page  # noqa: E402 - reads the variables above
from tools.paths import say  # noqa: E402 - reads the variables above

AT_ONCE = 6  # runs that share two cores without becoming late by that alone


def main(argv: list[str]) -> int:
    """Make every fault.

    Args:
        argv: As after the program's name; see `--help`.

    Returns:
        0 if each alert arrived and no other, every receiver heard of it, and every panel has data.
    """
    parser = argparse.ArgumentParser(prog="make monitoring-test")
    names = sorted(one.name for one in ALL)
    only = f"make these faults only, of {', '.join(names)}"
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=only)
    try:
        asked = parser.parse_args(argv)
    except SystemExit:
        shutil.rmtree(FOLDER)
        raise
    signal.signal(signal.SIGTERM, _stop)
    wanted = [one for one in ALL if not asked.only or one.name in asked.only]
    begun = time.time()
    try:
        platform = Platform(FOLDER, PHOTOGRAPHS)
        say(f"all programs are up after {time.time() - begun:.0f} s")
        begun = time.time()
        seen = _play(platform, wanted)
        complaints = []
        airflow = [one for one in wanted if one.breaking.__module__ == airflow.__name__]
        if airflow:
            complaints += airflow.deadlines_and_lineage(platform)
            say(f"a DAG's deadlines and lineage: {complaints or 'all told, once'}")
            seen += [_told(one, play(platform, one)) for one in airflow]
        complaints += [f"{one.fault.name}: {one.error}" for one in seen if one.error]
        if not asked.only:
            complaints += _receivers(platform) + silent_panels(platform, begun, time.time())
        platform.close()
    finally:
        children.end_all()
    for complaint in complaints:
        say(f"FAILED {complaint}")
    if complaints:
        say(f"{len(complaints)} complaints; logs are in {FOLDER}")
        return 1
    shutil.rmtree(FOLDER, ignore_errors=True)
    if not asked.only:
        write_page(seen, time.time() - begun)
    say(f"each of {len(seen)} faults brought its alert and no other, in {time.time() - begun:.0f} s")
    return 0


def _stop(*_: object) -> None:
    """End at once: the threads that make faults would be waited for."""
    children.end_all()
    os._exit(143)


def _play(platform: Platform, wanted: list[Fault]) -> list[Seen]:
    lock = threading.Lock()

    def one_of(one: Fault) -> Seen:
        seen = play(platform, one)
        with lock:
            return _told(one, seen)

    own = [one for one in wanted if one.breaking.__module__ == runs.__name__]
    shared = [one for one in wanted if one.breaking.__module__ == servers.__name__]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return [*threads.map(one_of, own), *map(one_of, shared)]


def _told(one: Fault, seen: Seen) -> Seen:
    outcome = seen.error or f"after {seen.fired:.1f} s, all clear after {seen.resolved:.1f} s"
    say(f"{one.name:<18}{one.alert:<30}{outcome}")
    return seen


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
    sys.exit(main(sys.argv[1:]))
