"""Pages to look at: report.html of a run, history.html of all of them."""

from imagebatch.stages.report.stage import ReportResult, report, report_if_possible

__all__ = ["ReportResult", "report", "report_if_possible"]
