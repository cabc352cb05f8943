"""The Grafana dashboards as code: `python monitoring/dashboards.py` writes `monitoring/dashboards/*.json`.

A test compares the files with what this makes, and `make monitoring-test` runs every panel's query.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDE, NARROW, TALL, LOW = 12, 4, 8, 4  # of a grid of 24 columns
FAINT = 8  # per cent, of the area below a curve
P = '{pipeline=~"$pipeline"}'


@dataclass(frozen=True)
class Chart:
    """One panel.

    Attributes:
        title: What it shows.
        unit: Grafana's id of a unit.
        queries: Pairs of a PromQL expression and a legend.
        about: One sentence for whoever wonders.
        number: Show the last value large, in place of a curve.
    """

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    about: str
    number: bool = False


def _number(title: str, unit: str, query: str, about: str, legend: str = "{{pipeline}}") -> Chart:
    return Chart(title, unit, [(query, legend)], about, number=True)


RUNS = {
    "Newest run": [
        _number(
            "Since the last success",
            "s",
            f"time() - imagebatch_last_success_timestamp_seconds{P}",
            "Age of the newest certificate.",
        ),
        _number(
            "To the deadline",
            "s",
            f"imagebatch_run_deadline_timestamp_seconds{P} - time()",
            "Below zero: it has passed.",
        ),
        _number(
            "Images listed",
            "short",
            'sum by (pipeline) (imagebatch_run_images{pipeline=~"$pipeline", outcome="listed"})',
            "Of the newest run.",
        ),
        _number(
            "Without a prediction",
            "short",
            f"sum by (pipeline) (imagebatch_run_images_without_prediction{P})",
            "Rejected or failed; failures.csv names each.",
        ),
        _number(
            "Processor seconds per 1,000 images",
            "s",
            f"imagebatch:cpu_seconds_per_1000_images{P}",
            "Stages, and the server's share as estimated from its latency.",
        ),
        _number(
            "Cost of 1,000 images",
            "none",
            f"imagebatch:cost_per_1000_images{P}",
            "Estimated from rules/thresholds.yml, in its currency.",
        ),
    ],
    "While it works": [
        Chart(
            "Images per second",
            "short",
            [(f"imagebatch:run_images:rate5m{P}", "{{pipeline}}")],
            "Scored, all shards together.",
        ),
        Chart(
            "Time left",
            "s",
            [
                (f"imagebatch:run_seconds_left{P} < Inf", "{{pipeline}} needs"),
                (f"imagebatch_run_deadline_timestamp_seconds{P} - time() > 0", "{{pipeline}} has"),
            ],
            "What it needs at the present rate, and what it has.",
        ),
        Chart(
            "Images done",
            "short",
            [
                (
                    f"sum by (pipeline, stage, outcome) (imagebatch_stage_images_total{P})",
                    "{{pipeline}} {{stage}} {{outcome}}",
                )
            ],
            "By stage and outcome, since the attempt began.",
        ),
        Chart(
            "Without a prediction, by reason",
            "short",
            [(f"imagebatch_run_images_without_prediction{P} > 0", "{{pipeline}} {{reason}}")],
            "Of the newest run that has its certificate.",
        ),
        Chart(
            "Requests in flight, images per request",
            "short",
            [
                (f"imagebatch_scoring_in_flight_limit{P}", "{{pipeline}} {{shard}} in flight"),
                (f"imagebatch_scoring_pack_images{P}", "{{pipeline}} {{shard}} images"),
            ],
            "The limits that scoring has found for the server.",
        ),
        Chart(
            "Retries and faults",
            "reqps",
            [
                (f"imagebatch:scoring_retries:rate5m{P}", "{{pipeline}} retries"),
                (
                    f"sum by (pipeline, fault) (rate(imagebatch_scoring_faults_total{P}[5m]))",
                    "{{pipeline}} {{fault}}",
                ),
            ],
            "Requests made again, and why.",
        ),
        Chart(
            "Pauses",
            "short",
            [(f"imagebatch:scoring_waits:rate5m{P}", "{{pipeline}}")],
            "Seconds of waiting per second, threads added up.",
        ),
        Chart(
            "Bytes read",
            "Bps",
            [(f"sum by (pipeline) (rate(imagebatch_scoring_bytes_total{P}[5m]))", "{{pipeline}}")],
            "Image files in answered requests.",
        ),
    ],
    "Stages": [
        Chart(
            "Exit codes",
            "short",
            [(f"imagebatch_stage_exit_code{P}", "{{pipeline}} {{stage}} {{shard}}")],
            "0 is done; docs/reference/protocol.md has the others.",
        ),
        Chart(
            "Duration",
            "s",
            [
                (
                    f"imagebatch_stage_end_timestamp_seconds{P} - imagebatch_stage_start_timestamp_seconds",
                    "{{pipeline}} {{stage}} {{shard}}",
                )
            ],
            "Of stages that have ended.",
        ),
        Chart(
            "Processor time",
            "s",
            [(f"imagebatch_stage_cpu_seconds_total{P}", "{{pipeline}} {{stage}} {{shard}}")],
            "Without the model server.",
        ),
        Chart(
            "Memory",
            "bytes",
            [(f"imagebatch_stage_memory_max_bytes{P}", "{{pipeline}} {{stage}} {{shard}}")],
            "Most that each stage has held.",
        ),
        Chart(
            "Free on the disk of the runs",
            "percentunit",
            [(f"imagebatch:runs_free_share{P}", "{{pipeline}}")],
            "As its stages see it.",
        ),
    ],
}
SERVING = {
    "Model server": [
        _number("Up", "bool_yes_no", "imagebatch:server_up", "Its metrics address answers.", "{{instance}}"),
        _number(
            "Workers loaded",
            "short",
            "imagebatch:server_worker_starts:changes15m",
            "Again, within a quarter of an hour: the worker with most.",
            "{{instance}}",
        ),
        Chart(
            "Requests",
            "reqps",
            [
                ("imagebatch:server_requests:rate5m", "{{instance}} {{model}}"),
                ("imagebatch:server_errors:rate5m", "{{instance}} errors"),
            ],
            "Answered, and answered with 5xx.",
        ),
        Chart(
            "Seconds per request",
            "s",
            [
                ("imagebatch:server_request_seconds:mean5m", "{{instance}} {{model}} all"),
                ("imagebatch:server_queue_seconds:mean5m", "{{instance}} {{model}} in the queue"),
            ],
            "Means; the difference is work.",
        ),
    ],
    "What watches": [
        Chart("Targets", "short", [("up", "{{job}}")], "1 where Prometheus can read."),
        Chart(
            "Last push",
            "s",
            [
                (
                    'time() - max by (pipeline, stage) (push_time_seconds{job="imagebatch"})',
                    "{{pipeline}} {{stage}}",
                )
            ],
            "Age of what stages have pushed.",
        ),
        Chart("Alerts", "short", [("count by (alertname) (ALERTS)", "{{alertname}}")], "Pending and firing."),
    ],
}
AIRFLOW = {
    "Airflow": [
        Chart("Heartbeats", "ops", [("imagebatch:scheduler_heartbeats:rate5m", "all")], "Of the scheduler."),
        Chart(
            "Trouble",
            "short",
            [
                ("imagebatch:task_failures:increase15m", "failed task instances"),
                ("imagebatch:deadlines_missed:increase15m", "missed deadlines"),
            ],
            "Within a quarter of an hour.",
        ),
    ],
}
BOARDS = {
    "runs": ("imagebatch: runs", RUNS),
    "platform": ("imagebatch: platform", SERVING | AIRFLOW),
}


def boards() -> dict[str, str]:
    """Make all dashboards.

    Returns:
        Grafana's JSON by file name.
    """
    return {
        f"{name}.json": as_json(_board(name, title, rows).build()) + "\n"
        for name, (title, rows) in BOARDS.items()
    }


def as_json(board: model.Dashboard) -> str:
    """Write a board, without the settings of intervals that the SDK gives to variables of every kind."""
    for variable in (board.templating and board.templating.list_val) or []:
        variable.auto = variable.auto_min = variable.auto_count = None
    return JSONEncoder(sort_keys=True, indent=1).encode(board)


def queries() -> list[tuple[str, str]]:
    """List every query as (board and panel, PromQL), with no pipeline left out."""
    return [
        (f"{name}: {chart.title}", query.replace("$pipeline", ".+"))
        for name, (_, rows) in BOARDS.items()
        for charts in rows.values()
        for chart in charts
        for query, _ in chart.queries
    ]


def _board(name: str, title: str, rows: dict[str, list[Chart]]) -> Dashboard:
    board = (
        Dashboard(title)
        .uid(f"imagebatch-{name}")
        .tags(["imagebatch"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(
            QueryVariable("pipeline")
            .label("Pipeline")
            .query("label_values(imagebatch_run_start_timestamp_seconds, pipeline)")
            .datasource(SOURCE)
            # Or Grafana would neither ask for the pipelines nor show all of them when it is opened.
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .current(VariableOption(selected=True, text="All", value="$__all"))
            .include_all(True)  # noqa: FBT003 - the SDK's setters
            .multi(True)  # noqa: FBT003 - the same
        )
    )
    numbers = itertools.count(1)  # explicit, so that a link to a panel stays right
    for heading, charts in rows.items():
        board = board.with_row(Row(heading).id(next(numbers)))
        for chart in charts:
            board = board.with_panel(_panel(chart).id(next(numbers)))
    return board


def _panel(chart: Chart) -> Stat | TimeSeries:
    panel: Stat | TimeSeries
    if chart.number:
        options = ReduceDataOptions().calcs(["lastNotNull"])
        panel = Stat().reduce_options(options).span(NARROW).height(LOW)
    else:
        names = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        tooltip = VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        panel = TimeSeries().legend(names.show_legend(True)).tooltip(tooltip)  # noqa: FBT003 - the same
        panel = panel.fill_opacity(FAINT).span(WIDE).height(TALL)
    panel = panel.title(chart.title).description(chart.about).unit(chart.unit).datasource(SOURCE)
    for letter, (query, legend) in zip("ABCDE", chart.queries, strict=False):
        panel = panel.with_target(Dataquery().expr(query).legend_format(legend).ref_id(letter))
    return panel


def main() -> int:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in boards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
