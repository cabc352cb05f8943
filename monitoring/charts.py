"""What the dashboards show: rows of charts, each a title, a unit and its queries."""

from collections.abc import Sequence
from dataclasses import dataclass

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
            "Accuracy, by people",
            "percentunit",
            [
                (
                    f'imagebatch_labelled_accuracy{{bound="{bound}", pipeline=~"$pipeline"}}',
                    f"{{{{pipeline}}}} {bound}",
                )
                for bound in ("high", "estimate", "low")
            ],
            "Of the newest run whose random sample people have labelled, with its 95 % interval.",
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
