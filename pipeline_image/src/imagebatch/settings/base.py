"""What every command takes, which run, and where the model API is."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeVar

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from imagebatch.settings.file import SettingsFile
from imagebatch.settings.values import (
    ApiUrls,
    Count,
    HttpUrl,
    ModelName,
    OptionalHttpUrl,
    OptionalTime,
    Path,
    ResultFiles,
    RunId,
    RunsUri,
    Seconds,
    Uri,
)

S = TypeVar("S", bound="CommonSettings")


class CommonSettings(BaseSettings):
    """What every command takes.

    The first line of each class is shown to people: as a command's summary, or as the title of the flags
    that a class gives to several commands.

    Attributes:
        one_of: Settings of which exactly one must be given.
    """

    model_config = SettingsConfigDict(
        env_prefix="IMAGEBATCH_",
        env_ignore_empty=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )
    one_of: ClassVar[tuple[str, ...]] = ()

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Drop log events below this level."
    )
    settings_file: Path = Field(
        default="",
        description="File of IMAGEBATCH_NAME=value lines, as tune writes it; flags and variables win.",
    )
    result_files: ResultFiles = Field(
        "",
        description="Files that fields of the last line are written to, for orchestrators that do not read"
        " it, as shards=/tmp/shards; line: the line itself; shard_list: a JSON list of preprocess's shards,"
        " as texts.",
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
        """Rank the variables above the settings file; flags stand before both."""
        return init_settings, env_settings, SettingsFile(settings_cls, CommonSettings)


class RunSettings(CommonSettings):
    """Which run, and where its metrics go."""

    run_id: RunId = Field(description="Name of the run: letters, digits, '.', '_' and '-', at most 128.")
    runs_uri: RunsUri = "var/runs"
    pipeline: ModelName = Field(
        "default", description="Name of the batch that this run is one of; metrics carry it."
    )
    metrics_url: OptionalHttpUrl = Field(
        "", description="Pushgateway that metrics are pushed to; empty: none."
    )
    metrics_interval: Seconds = Field(15, gt=0, le=3600, description="Seconds between two pushes.")
    next_run: OptionalTime = Field(
        None,
        description="When the next run of the pipeline is expected to begin, as 2026-01-31T02:00:00Z; metrics"
        " carry it.",
    )


class ApiSettings(CommonSettings):
    """Where the model API is, and how to be let in."""

    api_url: ApiUrls = Field(
        "http://127.0.0.1:8080",
        description="Inference API of the model server; several with commas between them, if each serves the"
        " same model. Of backend oip also grpc:// and grpcs://host:port, with imagebatch[grpc].",
    )
    management_url: HttpUrl = Field(
        "http://127.0.0.1:8081", description="Management API; also renews inference keys that have expired."
    )
    key_file: Path = Field(
        "", description="TorchServe's key_file.json, read again whenever a key is refused; empty: no keys."
    )
    api_token_file: Path = Field(
        "",
        description="File with a token for the model server, sent as Authorization: Bearer, or with a whole"
        " header, as X-API-Key: and its value; read again whenever it is refused. Empty: what"
        " IMAGEBATCH_API_TOKEN holds, if that is set.",
    )
    api_token_in_clear: bool = Field(
        default=False,
        description="Send the token unencrypted to another machine, too: whoever is between can read it.",
    )
    api_ca_file: Path = Field(
        "",
        description="PEM file of the authorities that sign the model server's certificate; empty: the public"
        " ones.",
    )
    model_archive: Path = Field(
        "",
        description="Backend local: the .mar file, run as code; {model} in it stands for the model's name."
        " Needs imagebatch[local].",
    )
    local_workers: Count = Field(
        0,
        ge=0,
        le=1024,
        description="Backend local: worker processes of one thread and about 600 MB each; backend oip:"
        " processes that make pixels, where the model takes these; 0: one per core.",
    )
    model_card: Path = Field(
        "",
        description="Backends oip, kserve_v1, mlflow, http, transform: file with what the server does not say"
        " of its model, its labels above all (docs/reference/model-apis.md); {model} in it stands for the"
        " model's name.",
    )
    payload: Literal["auto", "raw", "base64"] = Field(
        "auto",
        description="Backend oip: send files or pixels as raw bytes (binary tensors), or files as base64 and"
        " pixels as numbers in JSON; auto: the form in which the server answers a first image.",
    )
    request_template: Path = Field(
        "",
        description="Backend http: YAML file with the request and where the answers are in the reply"
        " (docs/reference/model-apis.md). Needs imagebatch[http].",
    )
    transform_output: Uri = Field(
        "",
        description="Backend transform: folder of a finished SageMaker batch transform of the input, with a"
        " file NAME.out for each image.",
    )
    shared_memory: bool = Field(
        default=True,
        description="Hand images to a model server on this machine by memory, where it can open it.",
    )
    request_timeout: Seconds = Field(
        120, gt=0, le=3600, description="Seconds before a request is given up (and tried again)."
    )
    retry_seconds: Seconds = Field(
        180, ge=0, le=86400, description="Seconds without any answer before the stage ends with code 69."
    )
