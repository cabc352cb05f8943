"""Every setting of every command, declared once: a flag, or the `IMAGEBATCH_*` variable of the same name.

One class per command; what several commands share stands in a mixin, whose sentence is the title of its flags
in --help. The tables of docs/reference/protocol.md are generated from these classes.
"""

from imagebatch.settings.base import ApiSettings, CommonSettings, RunSettings
from imagebatch.settings.commands import (
    BenchSettings,
    ConformanceSettings,
    DoctorSettings,
    ModelsSettings,
    PostprocessSettings,
    PruneSettings,
    RedriveSettings,
    ShadowSettings,
    TuneSettings,
    VerifySettings,
    WholeRunSettings,
)
from imagebatch.settings.reporting import (
    BaselineSettings,
    CheckSettings,
    HistorySettings,
    PastRunsSettings,
    ReportingSettings,
    ReportSettings,
    SampleSettings,
    TrendsSettings,
)
from imagebatch.settings.reviewing import LabelsSettings, ReviewSettings
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
    "ApiSettings",
    "BaselineSettings",
    "BenchSettings",
    "CheckSettings",
    "CommonSettings",
    "ConformanceSettings",
    "DoctorSettings",
    "HistorySettings",
    "InputSettings",
    "LabelsSettings",
    "MeasuringSettings",
    "ModelsSettings",
    "PastRunsSettings",
    "PostprocessSettings",
    "PreprocessSettings",
    "PruneSettings",
    "RedriveSettings",
    "ReportSettings",
    "ReportingSettings",
    "ReviewSettings",
    "RunSettings",
    "SampleSettings",
    "ScoreSettings",
    "ScoringSettings",
    "ShadowSettings",
    "SourceSettings",
    "TrendsSettings",
    "TuneSettings",
    "VerifySettings",
    "WholeRunSettings",
    "WholeScoringSettings",
]
