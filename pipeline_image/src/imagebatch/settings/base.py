"""What every command takes, which run, and where the model server is."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, Field, StringConstraints
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from imagebatch.settings.file import SettingsFile

RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ModelVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")]
Allowance = Annotated[str, StringConstraints(pattern=r"^(\d{1,9}|(100|\d{1,2})(\.\d+)?%)$")]

S = TypeVar("S", bound="CommonSettings")


class CommonSettings(BaseSettings):
    """What every command takes."""

    model_config = SettingsConfigDict(
        env_prefix="IMAGEBATCH_",
        env_ignore_empty=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log events below this level are dropped."
    )
    settings_file: str = Field(
        default="",
        description="File of IMAGEBATCH_NAME=value lines, as tune writes it; flags and variables win.",
    )

    def part(self, kind: type[S], **more: object) -> S:
        """Carve the settings of one command out of those of another.

        Args:
            kind: The settings wanted. They take their values from the settings of the same name here.
            more: Values that win over these, and those that are missing here.
        """
        return kind(**self.model_dump(include=set(kind.model_fields)) | more)

    @override
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags stand before all of these."""
        return init_settings, env_settings, SettingsFile(settings_cls, CommonSettings)


class RunSettings(CommonSettings):
    """Which run."""

    run_id: RunId = Field(description="Name of the run: letters, digits, '.', '_' and '-', at most 128.")
    runs_uri: str = Field(
        "var/runs", min_length=1, description="Where runs are kept: a folder or any fsspec URI."
    )
    pipeline: ModelName = Field(
        "default", description="Name of the batch that this run is one of; metrics carry it."
    )
    metrics_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Pushgateway that metrics are pushed to; empty: none.",
    )
    metrics_interval: float = Field(15, gt=0, le=3600, description="Seconds between two pushes.")
    next_run: AwareDatetime | None = Field(
        None, description="When the next run of the pipeline is expected to begin; metrics carry it."
    )


class ApiSettings(CommonSettings):
    """Where the model server is, and how to be let in."""

    api_url: HttpUrl = Field("http://127.0.0.1:8080", description="Inference API of the model server.")
    management_url: HttpUrl = Field(
        "http://127.0.0.1:8081", description="Management API; also renews inference keys that have expired."
    )
    key_file: str = Field(
        "", description="TorchServe's key_file.json, read again whenever a key is refused; empty: no keys."
    )
    model_archive: str = Field(
        "",
        description="Backend local: the .mar file, run as code; {model} in it stands for the model's name.",
    )
    local_workers: int = Field(
        0, ge=0, le=1024, description="Backend local: worker processes of one thread each; 0: one per core."
    )
    shared_memory: bool = Field(
        default=True,
        description="Hand images to a model server on this machine by memory, where it can open it.",
    )
    request_timeout: float = Field(
        120, gt=0, le=3600, description="Seconds before a request is given up (and tried again)."
    )
    retry_seconds: float = Field(
        180, ge=0, le=86400, description="Seconds without any answer before the stage ends with code 69."
    )
