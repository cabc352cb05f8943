"""Dashboards: the committed files are what the code makes, and Grafana's model takes them."""

import json
import re
from typing import Any

import dashboards
import pytest
from conftest import MONITORING, ROOT, rules
from grafana_foundation_sdk.models.dashboard import Dashboard

BOARDS = {name: json.loads(text) for name, text in dashboards.boards().items()}


def test_the_committed_files_are_what_the_code_makes() -> None:
    """`python monitoring/dashboards.py` was run after the last change."""
    committed = {path.name: path.read_text("utf-8") for path in (MONITORING / "dashboards").glob("*.json")}
    assert committed == dashboards.boards()


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_grafana_s_own_model_reads_the_file_without_loss(board: dict[str, Any]) -> None:
    """The SDK is generated from Grafana's schema: what it does not know would be gone after reading."""
    again = json.loads(dashboards.JSONEncoder(sort_keys=True, indent=1).encode(Dashboard.from_json(board)))
    assert again == board


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
