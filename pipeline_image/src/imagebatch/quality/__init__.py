"""Quality gates: Great Expectations on the manifest and on the predictions."""

from imagebatch.quality.stage import CheckResult, check

__all__ = ["CheckResult", "check"]
