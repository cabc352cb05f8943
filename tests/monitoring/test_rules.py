"""Rules: syntax, units, and that no alert lacks its tests, its threshold or its place in the runbook."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import MONITORING, ROOT, program, rules

ALERTS = rules("alerts.yml")
CASES = ROOT / "tests/monitoring/rules/alerts_test.yml"
# One fires always; the other asks whether rules are loaded at all.
UNTESTED = {"ImagebatchWatchdog", "ImagebatchThresholdsMissing"}


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    """promtool finds nothing to complain about."""
    run(program("promtool"), "check", "config", str(MONITORING / "prometheus.yml"))


def test_every_alert_does_what_its_cases_say() -> None:
    """promtool plays every case: silent, firing, resolved."""
    run(program("promtool"), "test", "rules", str(CASES))


def test_every_alert_has_its_cases() -> None:
    """Each alert is seen not to fire, to fire, and to go away again, in this order."""
    seen: dict[str, list[bool]] = {}
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for check in case.get("alert_rule_test", []):
            seen.setdefault(check["alertname"], []).append(bool(check["exp_alerts"]))
    assert seen.keys() == {alert["alert"] for alert in ALERTS} - UNTESTED
    assert {name for name, fired in seen.items() if fired[:3] != [False, True, False]} == set()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_links_its_heading_in_the_runbook(alert: dict[str, Any]) -> None:
    """Whoever is woken finds what it means, where to look and what to do."""
    page, heading = alert["annotations"]["runbook"].split("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    section = re.search(rf"^## {alert['alert']}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert heading == alert["alert"].lower()
    assert section
    assert "**Means**" in section[1]
    assert "**Do**" in section[1]
    assert alert["labels"]["severity"] in {"critical", "warning", "none"}


def test_the_runbook_has_no_other_headings() -> None:
    """A heading of an alert that is gone would mislead."""
    text = (ROOT / "docs/how-to/runbook.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [alert["alert"] for alert in ALERTS]


def test_every_name_that_a_rule_reads_exists() -> None:
    """A comparison with a threshold or a record that is not there would never fire, in silence."""
    recorded = {rule["record"] for name in ("recording.yml", "thresholds.yml") for rule in rules(name)}
    texts = [rule["expr"] for name in ("recording.yml", "alerts.yml") for rule in rules(name)]
    read = {name for text in texts for name in re.findall(r"imagebatch:[a-z0-9_:]+", text)}
    assert read <= recorded
    assert {name for name in recorded if name.startswith("imagebatch:threshold:")} <= read


def test_every_metric_that_a_rule_reads_is_one_of_ours_or_a_named_foreign_one() -> None:
    """The reference lists what stages push; a typing error would be a rule that sees nothing."""
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    texts = [rule["expr"] for name in ("recording.yml", "alerts.yml") for rule in rules(name)]
    ours = {name for text in texts for name in re.findall(r"\bimagebatch_[a-z_]+", text)}
    assert ours
    assert {name for name in ours if f"| `{name}` |" not in page} == set()


def test_every_record_stands_in_the_reference() -> None:
    """Whoever writes a query of their own finds what is recorded, and nothing that is not."""
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(imagebatch:[a-z0-9_:]+)` \|", page, re.MULTILINE))
    assert told == {rule["record"] for rule in rules("recording.yml")}


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"alertname": "ImagebatchRanShort", "severity": "warning"}, "team"),
        ({"alertname": "ImagebatchNoSuccess", "severity": "critical"}, "on-call"),
        ({"alertname": "ImagebatchWatchdog", "severity": "none"}, "deadman"),
    ],
)
def test_alertmanager_tells_whom_it_concerns(labels: dict[str, str], receivers: str) -> None:
    """amtool routes each kind of alert to its receiver."""
    config = str(MONITORING / "alertmanager.yml")
    pairs = [f"{name}={value}" for name, value in labels.items()]
    told = run(program("amtool"), "config", "routes", "test", f"--config.file={config}", *pairs)
    assert told.split() == [receivers]


def test_no_secret_stands_in_the_configuration() -> None:
    """Passwords, tokens and webhook addresses that are secrets come from files."""
    run(program("amtool"), "check-config", str(MONITORING / "alertmanager.yml"))
    text = (MONITORING / "alertmanager.yml").read_text()
    inline = r"^\s*(smtp_auth_password|slack_api_url|api_url|bearer_token|credentials|password):"
    assert re.findall(inline, text, re.MULTILINE) == []
