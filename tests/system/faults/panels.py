"""Every panel of every dashboard, asked of the Prometheus that has watched the faults."""

from dashboards import queries

from tests.system.faults.platform_under_watch import Platform


def silent_panels(platform: Platform, start: float, end: float) -> list[str]:
    """Find the queries that give no series.

    Args:
        platform: with its Prometheus.
        start: of the faults, in seconds since the epoch.
        end: of the faults.

    Returns:
        Complaints; Prometheus itself complains about a query that it does not understand.
    """
    return [
        f"panel {panel} has no data: {query}"
        for panel, query in queries()
        if not platform.query(query, start, end)
    ]
