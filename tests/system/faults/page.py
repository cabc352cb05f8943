"""docs/reference/alerts.md: what was done, what was told, and how soon."""

import os
from collections.abc import Sequence

from tests.system.faults.fault import Told
from tests.system.faults.render import HASTE
from tests.system.kit.table import head_of, row_of
from tests.system.kit.verdict import Verdict
from tools.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "alerts.md"
COLUMNS = (
    "fault",
    "alert",
    "seconds to the notification",
    "from the begin of the repair to the all-clear",
)


def write_page(verdicts: Sequence[Verdict[Told]], seconds: float) -> None:
    """Write the table of a complete run without failures, which took so long."""
    rows = "".join(_row(one.scenario.text, one.result) for one in verdicts if one.result)
    PAGE.write_text(
        "# Faults and alerts\n\n"
        "Written by `make monitoring-test`: each fault is made on real programs (Prometheus, Alertmanager,"
        " Pushgateway, collectd, TorchServe, the product's stages),\nand the alert beside it, and no other,"
        " arrives at a webhook. The rules are those of `monitoring/rules/` with every duration divided by"
        f" {HASTE}\n(`tests/system/faults/render.py`), so five minutes there are ten seconds here:"
        " in an installation the figures are about"
        f" that much larger.\nThis run, of {len(verdicts)} faults, took {seconds / 60:.1f} minutes"
        f" on {os.cpu_count()} cores that had other work.\n\n"
        f"{head_of(COLUMNS)}{rows}",
        encoding="utf-8",
    )


def _row(text: str, told: Told) -> str:
    runbook = f"[{told.alert}](../how-to/runbook.md#{told.alert.lower()})"
    return row_of((text, runbook, f"{told.fired:.0f}", f"{told.resolved:.0f}"))
