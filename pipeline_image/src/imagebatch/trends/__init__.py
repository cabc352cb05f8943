"""What has changed over the runs: the verb `trends`."""

from imagebatch.trends.findings import Finding, findings
from imagebatch.trends.verb import TrendsResult, trends

__all__ = ["Finding", "TrendsResult", "findings", "trends"]
