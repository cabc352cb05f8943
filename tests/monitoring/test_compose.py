"""The profile `monitoring` of docker-compose.yaml: confined, on loopback, wired as its configuration says."""

import json
import re
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import MONITORING, ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text("utf-8"))
WATCHERS = {name: one for name, one in COMPOSE["services"].items() if "monitoring" in one.get("profiles", [])}
PROMETHEUS = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))


def networks(service: str) -> set[str]:
    return set(COMPOSE["services"][service]["networks"])


def test_the_profile_has_what_the_page_says() -> None:
    """Four programs, none of which starts unless asked for."""
    assert set(WATCHERS) == {"prometheus", "alertmanager", "pushgateway", "statsd"}


@pytest.mark.parametrize("service", WATCHERS.values(), ids=WATCHERS)
def test_every_program_has_its_user_its_check_and_its_mounts(service: dict[str, Any]) -> None:
    """Nobody's user, a health check without a shell, configuration that cannot be written, a pinned image.

    What holds for every service is in tests/tools/compose/test_sources.py.
    """
    assert service["user"] == "65534:65534"
    assert service["healthcheck"]["test"][0] == "CMD"
    mounted = [mount for mount in service["volumes"] if mount.startswith(("./", "${"))]
    assert all(mount.endswith(":ro") for mount in mounted)
    assert re.match(r"\$\{[A-Z_]+_IMAGE:-prom/[a-z-]+:v[\d.]+\}$", service["image"])


def test_prometheus_reaches_every_target_by_a_network_that_nobody_else_needs() -> None:
    """Each target is a service with a network in common, and that network is internal."""
    jobs = [*PROMETHEUS["scrape_configs"], *PROMETHEUS["alerting"]["alertmanagers"]]
    targets = [target for job in jobs for config in job["static_configs"] for target in config["targets"]]
    assert len(targets) == 4
    for target in targets:
        shared = networks("prometheus") & networks(target.split(":")[0])
        assert shared, target
        assert all(COMPOSE["networks"][name]["internal"] for name in shared)


def test_who_pushes_reaches_who_is_pushed_to() -> None:
    """A stage shares one network with the Pushgateway, Airflow one with the StatsD exporter."""
    assert networks("imagebatch") & networks("pushgateway") == {"inference"}
    assert networks("airflow-scheduler") & networks("statsd") == {"airflow"}


def test_only_alertmanager_gets_out() -> None:
    """It must mail and post; what it does not share is a network with a stage, a key or a database."""
    outward = {name for name, one in COMPOSE["networks"].items() if not (one or {}).get("internal")} - {"ui"}
    assert outward == {"alerts"}
    assert [name for name, one in COMPOSE["services"].items() if "alerts" in (one.get("networks") or [])] == [
        "alertmanager"
    ]


def test_airflow_s_own_deadlines_can_be_let_out() -> None:
    """The overlay names every setting of the notifiers, and gives the scheduler one network more."""
    overlay = yaml.safe_load((MONITORING / "compose-alerts.yaml").read_text("utf-8"))
    ((service, changed),) = overlay["services"].items()
    assert service == "airflow-scheduler"
    assert changed["networks"] == ["alerts"]
    notifiers = (ROOT / "dags/imagebatch_dags/notifiers.py").read_text("utf-8")
    wanted = set(re.findall(r"IMAGEBATCH_ALERT_[A-Z_]+[A-Z]", notifiers))
    assert set(changed["environment"]) == wanted
    # Where no variable is set, nothing is told.
    given = {name: value.partition(":-")[2].rstrip("}") for name, value in changed["environment"].items()}
    told = {name for name in ("WEBHOOK", "SLACK_FILE", "EMAIL") if given[f"IMAGEBATCH_ALERT_{name}"]}
    assert told == set()


def test_nothing_is_pushed_unless_the_profile_is_set_up() -> None:
    """Without an address a stage neither pushes nor waits."""
    told = COMPOSE["services"]["airflow-scheduler"]["environment"]
    assert told["IMAGEBATCH_METRICS_URL"] == "${IMAGEBATCH_METRICS_URL:-}"
    assert told["AIRFLOW__METRICS__STATSD_ON"] == "${AIRFLOW_STATSD:-False}"


# Grafana's documentation, "Provision Grafana"; it ignores what it does not know, in silence.
SOURCE_KEYS = {
    "name",
    "type",
    "access",
    "orgId",
    "uid",
    "url",
    "user",
    "database",
    "basicAuth",
    "basicAuthUser",
} | {"withCredentials", "isDefault", "jsonData", "secureJsonData", "version", "editable"}
# `PromOptions` of @grafana/prometheus 13.2.1.
PROMETHEUS_KEYS = {
    "timeInterval",
    "queryTimeout",
    "httpMethod",
    "customQueryParameters",
    "disableMetricsLookup",
} | {"prometheusType", "prometheusVersion", "cacheLevel", "defaultEditor", "incrementalQuerying"}
PROVIDER_KEYS = {
    "name",
    "orgId",
    "folder",
    "folderUid",
    "type",
    "disableDeletion",
    "updateIntervalSeconds",
} | {"allowUiUpdates", "options"}


def test_grafana_knows_every_key_of_its_provisioning() -> None:
    """A misspelt key would be ignored, and the dashboards empty or open to changes."""
    folder = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "imagebatch.yml").read_text())
    providers = yaml.safe_load((folder / "dashboards" / "imagebatch.yml").read_text())
    assert set(sources) == {"apiVersion", "datasources"}
    assert set(providers) == {"apiVersion", "providers"}
    assert sources["apiVersion"] == providers["apiVersion"] == 1
    for source in sources["datasources"]:
        assert set(source) <= SOURCE_KEYS
        assert set(source["jsonData"]) <= PROMETHEUS_KEYS
        assert source["access"] in {"proxy", "direct"}
    for provider in providers["providers"]:
        assert set(provider) <= PROVIDER_KEYS
        assert set(provider["options"]) <= {"path", "foldersFromFilesStructure"}
        assert provider["type"] == "file"


def test_grafana_is_provisioned_with_this_prometheus_and_these_dashboards() -> None:
    """The source's address is the service's, and the dashboards have no other source than the chosen one."""
    folder = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "imagebatch.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "imagebatch.yml").read_text())["providers"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert provider["options"]["path"] in (ROOT / "docs/how-to/monitoring.md").read_text("utf-8")
    for path in (MONITORING / "dashboards").glob("*.json"):
        panels = [panel for panel in json.loads(path.read_text())["panels"] if "targets" in panel]
        assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
