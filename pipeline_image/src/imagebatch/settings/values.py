"""The kinds of values that settings take: what is allowed, and the name that help gives them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from imagebatch.settings.backends import require_backend

AUTO = "auto"  # of --review-below: what the model declares
GRPC_SCHEMES = ("grpc://", "grpcs://")  # of --api-url, where --backend speaks it
_NAME = StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


@dataclass(frozen=True, slots=True)
class ValueName:
    """Name the value of a setting for help, as in `--pack-size COUNT`; it says the unit or the kind.

    Attributes:
        text: The name, in capitals.
    """

    text: str


def _known_encoding(name: str) -> str:
    if name:
        try:
            "".encode(name)
        except LookupError as error:
            msg = "no text encoding is known by this name; utf-8, utf-16 and cp1252 are usual"
            raise ValueError(msg) from error
    return name


def _command_line(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError as error:
        msg = f"not a command line: {error}"
        raise ValueError(msg) from error
    return text.strip()


def _threshold(text: str) -> str:
    if text not in {"", AUTO}:
        try:
            inside = 0 < float(text) <= 1
        except ValueError:
            inside = False
        if not inside:
            msg = f"must be a probability above 0 and at most 1, or {AUTO}"
            raise ValueError(msg)
    return text


RunId = Annotated[str, _NAME, ValueName("NAME")]
OptionalRunId = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$"), ValueName("NAME")
]
ModelName = Annotated[str, _NAME, ValueName("NAME")]
ModelReference = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$|"
        r"^models:/[A-Za-z0-9][A-Za-z0-9._-]{0,127}@[A-Za-z0-9_-]{1,64}$"
    ),
    ValueName("MODEL"),
]
ModelVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$"), ValueName("VERSION")]
Name = Annotated[str, ValueName("NAME")]
Backend = Annotated[str, AfterValidator(require_backend), ValueName("NAME")]
Names = Annotated[str, ValueName("NAME,...")]

Line = Annotated[str, AfterValidator(_command_line), ValueName("COMMAND")]
Sql = Annotated[str, ValueName("SQL")]
Path = Annotated[str, ValueName("PATH")]
Uri = Annotated[str, ValueName("URI")]
Uris = Annotated[str, ValueName("URI,...")]
RunsUri = Annotated[
    str, Field(min_length=1, description="Where runs are kept: a folder or any fsspec URI."), ValueName("URI")
]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$"), ValueName("URL")]
ApiUrls = Annotated[
    str,
    StringConstraints(pattern=r"^(https?|grpcs?)://[^\s?#,]+(,(https?|grpcs?)://[^\s?#,]+)*$"),
    ValueName("URL,..."),
]
OptionalHttpUrl = Annotated[str, StringConstraints(pattern=r"^(https?://[^\s?#]+)?$"), ValueName("URL")]
Encoding = Annotated[str, AfterValidator(_known_encoding), ValueName("NAME")]
Patterns = Annotated[str, ValueName("PATTERN,...")]
Ports = Annotated[str, ValueName("PORT,...")]
ResultFiles = Annotated[
    str, StringConstraints(pattern=r"^([a-z_]+=[^,=]+(,[a-z_]+=[^,=]+)*)?$"), ValueName("NAME=PATH,...")
]

Allowance = Annotated[
    str, StringConstraints(pattern=r"^(\d{1,9}|(100|\d{1,2})(\.\d+)?%)$"), ValueName("COUNT|PERCENT")
]
OptionalAllowance = Annotated[
    str, StringConstraints(pattern=r"^((\d{1,9}|(100|\d{1,2})(\.\d+)?%)?)$"), ValueName("COUNT|PERCENT")
]

Count = Annotated[int, ValueName("COUNT")]
Number = Annotated[int, ValueName("NUMBER")]
Bytes = Annotated[int, ValueName("BYTES")]
Pixels = Annotated[int, ValueName("PIXELS")]
WholeSeconds = Annotated[int, ValueName("SECONDS")]
Seconds = Annotated[float, ValueName("SECONDS")]
Days = Annotated[float, ValueName("DAYS")]
Gigabytes = Annotated[float, ValueName("GB")]
Rate = Annotated[float, ValueName("IMAGES/S")]
ReviewBelow = Annotated[str, AfterValidator(_threshold), ValueName("PROBABILITY|AUTO")]
OptionalProbability = Annotated[float | None, ValueName("PROBABILITY")]
Share = Annotated[float, ValueName("SHARE")]
Probability = Annotated[float, ValueName("PROBABILITY")]
OptionalTime = Annotated[AwareDatetime | None, ValueName("TIME")]
