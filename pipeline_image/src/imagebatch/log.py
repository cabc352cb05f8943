"""Structured logs on standard error: readable on a terminal, `key=value` lines elsewhere."""

from __future__ import annotations

import sys

import structlog


def configure(level: str) -> None:
    """Send every log event to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`; events below it are dropped.
    """
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if terminal
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Standard error as it is when a line is written: it may have been redirected since.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger that every module uses."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
