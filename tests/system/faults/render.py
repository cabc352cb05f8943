"""The shipped configuration on loopback and in a hurry: the same rules and routes, every duration divided.

Nothing else is changed in `monitoring/rules/`: what is seen to fire here fires in an installation too, later.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from tools.paths import ROOT

HASTE = 30  # five minutes are ten seconds
MONITORING = ROOT / "monitoring"
SECONDS = {"s": 1, "m": 60, "h": 3600}
# In the place of nights and hours.
THRESHOLDS = {"no_success_seconds": 90, "start_grace_seconds": 5, "silent_seconds": 10}
PUSH_SECONDS = 0.5


def render(folder: Path, ports: dict[str, int], webhook: str) -> None:
    """Write configurations of all programs.

    Args:
        folder: where to.
        ports: of loopback: prometheus, alertmanager, pushgateway, torchserve, collectd, statsd, smtp.
        webhook: base URL of the receiver that plays Slack, the pager and the dead man's switch.
    """
    _rules(folder / "rules")
    _prometheus(folder, ports)
    _alertmanager(folder, ports, webhook)
    _collectd(folder, ports)


def hurried(text: str) -> str:
    """Divide a duration such as `5m`; days stay days."""
    match = re.fullmatch(r"(\d+)([smh])", text)
    if match is None or text == "0s":
        return text
    return f"{max(1, round(int(match[1]) * SECONDS[match[2]] / HASTE))}s"


def _rules(folder: Path) -> None:
    folder.mkdir()
    for path in (MONITORING / "rules").glob("*.yml"):
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            for rule in group["rules"]:
                _hurry(rule)
        (folder / path.name).write_text(yaml.safe_dump(content, sort_keys=False))


def _hurry(rule: dict[str, Any]) -> None:
    threshold = str(rule.get("record", "")).removeprefix("imagebatch:threshold:")
    if threshold in THRESHOLDS:
        rule["expr"] = f"vector({THRESHOLDS[threshold]})"
    rule["expr"] = re.sub(r"\[(\d+[smh])\]", lambda found: f"[{hurried(found[1])}]", rule["expr"])
    rule["expr"] = re.sub(r"offset (\d+[smh])", lambda found: f"offset {hurried(found[1])}", rule["expr"])
    if "for" in rule:
        rule["for"] = hurried(rule["for"])


def _prometheus(folder: Path, ports: dict[str, int]) -> None:
    content = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    content["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (alertmanagers,) = content["alerting"]["alertmanagers"]
    alertmanagers["static_configs"] = [{"targets": [f"127.0.0.1:{ports['alertmanager']}"]}]
    for job in content["scrape_configs"]:
        name = {"airflow": "collectd"}.get(job["job_name"], job["job_name"])
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[name]}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(content))


def _alertmanager(folder: Path, ports: dict[str, int], webhook: str) -> None:
    content = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "slack_url").write_text(f"{webhook}/slack")
    (secrets / "webhook_token").write_text("token-of-the-pager")
    content["global"] = {
        "resolve_timeout": "10s",
        "smtp_smarthost": f"127.0.0.1:{ports['smtp']}",
        "smtp_from": content["global"]["smtp_from"],
        "smtp_require_tls": False,
        "smtp_hello": "localhost",
        "slack_api_url_file": str(secrets / "slack_url"),
    }
    content["templates"] = [str(MONITORING / "templates" / "*.tmpl")]
    for route in (content["route"], *content["route"]["routes"]):
        for name in ("group_wait", "repeat_interval"):
            if name in route:
                route[name] = hurried(route[name])
        route["group_interval"] = "2s"
    content["route"]["repeat_interval"] = "1h"  # told once
    for route in content["route"]["routes"]:
        route["repeat_interval"] = "1h"
    for receiver in content["receivers"]:
        hooks = receiver.setdefault("webhook_configs", [])
        for hook in hooks:
            hook["url"] = f"{webhook}/{receiver['name']}"
            if "http_config" in hook:
                hook["http_config"]["authorization"]["credentials_file"] = str(secrets / "webhook_token")
        # Who is told is asserted by address; this one keeps what they were told, in Alertmanager's own words.
        hooks.append({"url": f"{webhook}/record", "send_resolved": True})
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(content))


def _collectd(folder: Path, ports: dict[str, int]) -> None:
    text = (MONITORING / "collectd.conf").read_text()
    text = text.replace("0.0.0.0", "127.0.0.1").replace("Interval 10", "Interval 1")  # noqa: S104 - replaced
    text = text.replace("9125", str(ports["statsd"])).replace("9102", str(ports["collectd"]))
    text = text.replace("/var/lib/collectd", str(folder)).replace(
        "/run/collectd.pid", f"{folder}/collectd.pid"
    )
    (folder / "collectd.conf").write_text(text)
    shutil.copytree(MONITORING / "templates", folder / "templates")
