"""Dashboards: the committed files are what the code makes, and Grafana's model takes them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dashboards
import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.monitoring.conftest import MONITORING, ROOT, rules

# `npm ci --ignore-scripts` there; `.ci/run` does it.
TYPES = ROOT / "tests" / "monitoring" / "grafana" / "node_modules"
# The types want enumerations, the files hold their values.
PROLOGUE = """
import type { Dashboard } from "@grafana/schema";
import type * as stat from
  "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeseries from
  "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
type Written<T> = T extends string ? (string extends T ? string : `${T}`) : T extends number ? number
  : T extends (infer U)[] ? Written<U>[] : T extends object ? { [K in keyof T]: Written<T[K]> } : T;
"""
BOARDS = {name: json.loads(text) for name, text in dashboards.boards().items()}


def test_the_committed_files_are_what_the_code_makes() -> None:
    """`python monitoring/dashboards.py` was run after the last change."""
    committed = {path.name: path.read_text("utf-8") for path in (MONITORING / "dashboards").glob("*.json")}
    assert committed == dashboards.boards()


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_grafana_s_own_model_reads_the_file_without_loss(board: dict[str, Any]) -> None:
    """The SDK is generated from Grafana's schema: what it does not know would be gone after reading."""
    assert json.loads(dashboards.as_json(Dashboard.from_json(board))) == board


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_panel_has_a_place_an_id_a_unit_and_named_queries(board: dict[str, Any]) -> None:
    """No two panels overlap or share an id, and no curve is called A."""
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDE")[: len(panel["targets"])]
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_every_record_that_a_panel_reads_exists() -> None:
    """A panel of a renamed rule would be empty for ever."""
    known = {rule["record"] for name in ("recording.yml", "thresholds.yml") for rule in rules(name)}
    page = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
    text = json.dumps(BOARDS)
    assert set(re.findall(r"imagebatch:[a-z0-9_:]+", text)) <= known | {"imagebatch: runs"}
    assert {
        name for name in re.findall(r"\bimagebatch_[a-z_]+", text) if f"| `{name}` |" not in page
    } == set()


def test_grafana_13_s_own_types_take_the_boards(tmp_path: Path) -> None:
    """TypeScript finds no unknown key, no missing one and no wrong value, of a board or a panel's options."""
    complaints = typed(tmp_path, BOARDS)
    assert complaints == ""


def test_grafana_s_types_would_object(tmp_path: Path) -> None:
    """The check can fail: on a misspelt option, and on a value that is none."""
    spoilt = json.loads(json.dumps(BOARDS["runs.json"]))
    panels = [panel for panel in spoilt["panels"] if panel["type"] == "stat"]
    panels[0]["options"]["graphModus"] = "area"
    panels[1]["options"]["textMode"] = "large"
    spoilt["refreshing"] = "30s"
    complaints = typed(tmp_path, {"runs.json": spoilt})
    assert all(word in complaints for word in ("graphModus", "large", "refreshing"))


def typed(folder: Path, boards: dict[str, Any]) -> str:
    """What TypeScript says of boards and their panels' options as literals of Grafana's types."""
    node = shutil.which("node")
    if node is None or not TYPES.is_dir():
        pytest.skip("no node, or no `npm ci --ignore-scripts` in tests/monitoring/grafana")
    lines = [PROLOGUE]
    for board in boards.values():
        lines.append(f"export const board{len(lines)}: Written<Dashboard> = {json.dumps(board, indent=1)};")
        for panel in (one for one in board["panels"] if one["type"] != "row"):
            of = f"Partial<Written<{panel['type']}.Options>>"
            lines.append(f"export const options{len(lines)}: {of} = {json.dumps(panel['options'])};")
    (folder / "node_modules").symlink_to(TYPES)
    (folder / "boards.ts").write_text("\n".join(lines), encoding="utf-8")
    compiler = str(TYPES / "typescript" / "bin" / "tsc")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext"]
    done = subprocess.run(
        [node, compiler, *options, "boards.ts"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr
