"""Quality gates: Great Expectations on the manifest and on the predictions."""

from imagebatch.stages.check.stage import CheckResult, check

__all__ = ["CheckResult", "check"]
