"""Every setting of every command, declared once: a flag, or the `IMAGEBATCH_*` variable of the same name.

One class per command; what several commands share stands in a mixin. docs/reference/protocol.md lists the
same settings.
"""

from imagebatch.settings.base import (
    Allowance,
    ApiSettings,
    CommonSettings,
    HttpUrl,
    ModelName,
    ModelVersion,
    RunId,
    RunSettings,
)
from imagebatch.settings.commands import (
    BenchSettings,
    DoctorSettings,
    ModelsSettings,
    PostprocessSettings,
    PruneSettings,
    RedriveSettings,
    TuneSettings,
    VerifySettings,
    WholeRunSettings,
)
from imagebatch.settings.reporting import (
    BaselineSettings,
    CheckSettings,
    HistorySettings,
    ReportSettings,
    SampleSettings,
    TrendsSettings,
)
from imagebatch.settings.scoring import (
    DEFAULT_INCLUDE,
    MOST_IN_FLIGHT,
    MOST_PER_PACK,
    InputSettings,
    MeasuringSettings,
    PreprocessSettings,
    ScoreSettings,
    ScoringSettings,
    SourceSettings,
    WholeScoringSettings,
)

__all__ = [
    "DEFAULT_INCLUDE",
    "MOST_IN_FLIGHT",
    "MOST_PER_PACK",
    "Allowance",
    "ApiSettings",
    "BaselineSettings",
    "BenchSettings",
    "CheckSettings",
    "CommonSettings",
    "DoctorSettings",
    "HistorySettings",
    "HttpUrl",
    "InputSettings",
    "MeasuringSettings",
    "ModelName",
    "ModelVersion",
    "ModelsSettings",
    "PostprocessSettings",
    "PreprocessSettings",
    "PruneSettings",
    "RedriveSettings",
    "ReportSettings",
    "RunId",
    "RunSettings",
    "SampleSettings",
    "ScoreSettings",
    "ScoringSettings",
    "SourceSettings",
    "TrendsSettings",
    "TuneSettings",
    "VerifySettings",
    "WholeRunSettings",
    "WholeScoringSettings",
]
