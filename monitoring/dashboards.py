"""The Grafana dashboards as code: `python monitoring/dashboards.py` writes `monitoring/dashboards/*.json`.

What they show is in `charts.py`; this makes Grafana's JSON of it. A test compares the files with what is
made, and `make monitoring-test` runs every panel's query.
"""

import itertools
import sys
from pathlib import Path

from charts import BOARDS, Chart
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
            .include_all(True)  # noqa: FBT003 - the SDK's setters take positional booleans
            .multi(True)  # noqa: FBT003 - the SDK's setters take positional booleans
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
        panel = TimeSeries().legend(names.show_legend(True)).tooltip(tooltip)  # noqa: FBT003 - the SDK's setters take positional booleans
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
