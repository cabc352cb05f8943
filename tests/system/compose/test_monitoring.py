"""The profile `monitoring`, after a run of the stack: what Prometheus has read, and from whom."""

import json
import time
import urllib.parse
import urllib.request
from typing import Any

import pytest

from tools.compose.stack import Stack

DAG = "batch_image_inference"
IMAGES = 2624


def asked(stack: Stack, path: str) -> Any:
    """Ask Prometheus' published port."""
    url = f"http://127.0.0.1:{stack.settings['PROMETHEUS_PORT']}/api/v1/{path}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())["data"]


def value(stack: Stack, query: str) -> float:
    """Evaluate a query that has one answer; it may be a scrape away."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = asked(stack, f"query?{urllib.parse.urlencode({'query': query})}")["result"]
        if len(found) == 1:
            return float(found[0]["value"][1])
        time.sleep(2)
    pytest.fail(f"{query} has {len(found)} answers, not one")


def test_prometheus_reads_every_target(stack: Stack) -> None:
    """The Pushgateway, TorchServe and Airflow's StatsD answer over the internal networks."""
    targets = {one["labels"]["job"]: one["health"] for one in asked(stack, "targets")["activeTargets"]}
    assert targets == {"pushgateway": "up", "torchserve": "up", "airflow": "up"}


def test_rules_are_evaluated_and_alerts_have_an_alertmanager(stack: Stack) -> None:
    """Every rule is healthy, and somebody is there to be told."""
    rules = [rule for group in asked(stack, "rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert len(asked(stack, "alertmanagers")["activeAlertmanagers"]) == 1


def test_a_stage_has_pushed_what_its_run_came_to(stack: Stack) -> None:
    """The stages' containers reach the Pushgateway, and it nothing else of theirs."""
    labels = f'pipeline="{DAG}"'
    assert value(stack, f'sum(imagebatch_run_images{{{labels},outcome="predicted"}})') == IMAGES
    assert value(stack, f"imagebatch_last_success_timestamp_seconds{{{labels}}}") > 0
    assert value(stack, f'imagebatch_stage_exit_code{{{labels},stage="postprocess"}}') == 0


def test_the_server_and_the_scheduler_show_their_work(stack: Stack) -> None:
    """Foreign names arrive under ours."""
    assert value(stack, "count(imagebatch:server_up == 1)") == 1
    assert value(stack, "imagebatch:scheduler_heartbeats:rate5m") > 0


def test_nothing_is_wrong_with_a_stack_that_is_well(stack: Stack) -> None:
    """Of all alerts the watchdog alone fires."""
    firing = [one for one in asked(stack, "alerts")["alerts"] if one["state"] == "firing"]
    assert [one["labels"]["alertname"] for one in firing] == ["ImagebatchWatchdog"]
