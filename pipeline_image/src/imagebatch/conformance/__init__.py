"""The contract of a model API as checks that any server can be held to (`imagebatch conformance`)."""

from imagebatch.conformance.checks import CHECKS, UNDER_LOAD
from imagebatch.conformance.subject import Check, Finding, NotKeptError, Outcome, SkippedError, Subject, found

__all__ = [
    "CHECKS",
    "UNDER_LOAD",
    "Check",
    "Finding",
    "NotKeptError",
    "Outcome",
    "SkippedError",
    "Subject",
    "found",
]
