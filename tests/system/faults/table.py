"""docs/reference/alerts.md: what was done, what was told, and how soon."""

import os

from tests.system.faults.fault import Seen
from tests.system.faults.render import HASTE
from tools.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "alerts.md"


def write_page(seen: list[Seen], seconds: float) -> None:
    """Write the table of a complete run, which took so long."""
    rows = [
        f"| {one.fault.text} | [{one.fault.alert}](../how-to/runbook.md#{one.fault.alert.lower()})"
        f" | {one.fired:.0f} | {one.resolved:.0f} |"
        for one in seen
    ]
    PAGE.write_text(
        "# Faults and alerts\n\n"
        "Written by `make monitoring-test`: each fault is made on real programs (Prometheus, Alertmanager,"
        " Pushgateway, collectd, TorchServe, the product's stages),\nand the alert beside it, and no other,"
        " arrives at a webhook. The rules are those of `monitoring/rules/` with every duration divided by"
        f" {HASTE}\n(`tests/system/faults/render.py`), so five minutes there are ten seconds here:"
        " in an installation the figures are about"
        f" that much larger.\nThis run, of {len(seen)} faults, took {seconds / 60:.1f} minutes"
        f" on {os.cpu_count()} cores that had other work.\n\n"
        "| fault | alert | seconds to the notification | from the begin of the repair to the all-clear |\n"
        "|---|---|---|---|\n" + "\n".join(rows) + "\n",
        encoding="utf-8",
    )
