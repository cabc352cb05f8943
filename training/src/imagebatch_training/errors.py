"""Everything that `imagebatch-train` reports as one line instead of a traceback.

TrainingError            exit code
├── ConfigurationError   78  the configuration, or the order of the verbs, is wrong
├── DataError            65  images, labels or predictions do not fit
├── DownloadError        69  the package index did not answer with the expected file: a retry may help
├── NothingToCompareError 99 no finished run to compare two versions on; a release goes on without
└── ServerError          69  the model server or MLflow did not answer: a retry may help
"""

from typing import ClassVar


class TrainingError(Exception):
    """The root. Its text is one line that says what happened and what to do."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(TrainingError):
    """The configuration is wrong, or what an earlier verb makes is missing."""

    exit_code = 78


class DataError(TrainingError):
    """Images, labels or predictions do not fit what is asked of them."""

    exit_code = 65


class NothingToCompareError(TrainingError):
    """There is no finished run whose images two versions could be asked about."""

    exit_code = 99


class DownloadError(TrainingError):
    """A file could not be fetched, or is not the expected one."""

    exit_code = 69


class ServerError(TrainingError):
    """The model server, or the model registry, did not answer."""

    exit_code = 69
