"""Everything that can go wrong, as one tree.

    ImagebatchError
    ├── UsageError                 2   wrong flag or value
    ├── DataRefusedError          65   a quality gate failed, too many failures, an input without images
    ├── ModelApiUnavailableError  69   the model API did not answer after all retries      (retry)
    ├── StorageError              74   reading or writing the run failed                   (retry)
    ├── RunHeldError              75   another attempt holds this run or shard             (retry later)
    ├── ConfigurationError        78   credentials refused, unknown run, …
    │   ├── InputNotFoundError    78   the input does not exist
    │   ├── UnknownModelError     78   the model API does not serve this model
    │   ├── ModelChangedError     78   the digest is not the one that the run was started with
    │   └── RunMismatchError      78   the run id was used for other inputs
    ├── NotProvenError            65   a finished run does not match its certificate
    └── NothingToDoError          99   the input is empty, and it may be

The numbers are the process's exit codes (docs/reference/protocol.md). The command line has one `except` for
the root, and one for what nobody has foreseen, which ends with 1 and leaves its details in a file.
"""

from __future__ import annotations

from enum import IntEnum

MAX_MESSAGE = 900


class ExitCode(IntEnum):
    """Exit codes of every command; 65 to 78 follow BSD's sysexits.h."""

    OK = 0
    UNFORESEEN = 1
    USAGE = 2
    DATA_REFUSED = 65
    UNAVAILABLE = 69
    STORAGE = 74
    HELD = 75
    CONFIGURATION = 78
    NOTHING_TO_DO = 99


def one_line(text: object, limit: int = MAX_MESSAGE) -> str:
    """Make any text safe to print on one line: no control characters, bounded length.

    Args:
        text: What to print; file names and server replies inside it are not trusted.
        limit: Longest result, in characters.
    """
    flat = "".join(c if c.isprintable() else " " for c in str(text))
    flat = " ".join(flat.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


class ImagebatchError(Exception):
    """Root of the tree: a failure with an exit code and a one-line text.

    Attributes:
        exit_code: What the process exits with.
        retry: Whether running the same command again can help.
    """

    exit_code = ExitCode.CONFIGURATION
    retry = False

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(ImagebatchError):
    """A flag or value that the command does not take."""

    exit_code = ExitCode.USAGE


class DataRefusedError(ImagebatchError):
    """A quality gate failed, there were more failures than allowed, or the input holds no image."""

    exit_code = ExitCode.DATA_REFUSED


class ModelApiUnavailableError(ImagebatchError):
    """The model API did not answer after all retries."""

    exit_code = ExitCode.UNAVAILABLE
    retry = True


class StorageError(ImagebatchError):
    """Reading or writing the run's files failed."""

    exit_code = ExitCode.STORAGE
    retry = True


class RunHeldError(ImagebatchError):
    """A newer attempt has taken this run or shard over."""

    exit_code = ExitCode.HELD
    retry = True


class ConfigurationError(ImagebatchError):
    """Settings that cannot work, whatever is retried."""


class InputNotFoundError(ConfigurationError):
    """The input folder, file or manifest does not exist."""


class UnknownModelError(ConfigurationError):
    """The model API does not serve the model or version asked for."""


class ModelChangedError(ConfigurationError):
    """The served model's digest is not the one that the run was started with."""


class RunMismatchError(ConfigurationError):
    """The run id was already used for other inputs or options."""


class NotProvenError(ImagebatchError):
    """A finished run does not match its certificate."""

    exit_code = ExitCode.DATA_REFUSED


class NothingToDoError(ImagebatchError):
    """The input holds no image, and it may."""

    exit_code = ExitCode.NOTHING_TO_DO
