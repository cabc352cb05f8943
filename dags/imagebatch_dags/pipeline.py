"""What makes one batch DAG differ from another, as one YAML file or one call says it.

Every field of `Pipeline` is a key of a pipeline's file. One that names commands becomes their flag of the
same name (`--max-failures`), and one with a title is a field of the trigger form, too. So a new flag of
`imagebatch` is one entry here, and what is allowed stands beside it, for the file, the form and complaints.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import UTC, datetime
from types import MappingProxyType, NoneType
from typing import Any, get_args

from croniter import croniter

from imagebatch_dags.dates import PLACEHOLDERS, mistake_in, names_a_date

NIGHTLY = "0 2 * * *"
CRON_FIELDS = 5
PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$(?!\n)"
DAG_ID = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,99}$(?!\n)"
VERSION = r"^[A-Za-z0-9._-]{0,64}$(?!\n)"
ALLOWANCE = r"^([0-9]{1,9}|(100|[0-9]{1,2})(\.[0-9]+)?%)$(?!\n)"
LONGEST = 4096  # characters of a path or an address
# Runs that do not speak for the pipeline of tonight carry its name with one of these (night.py).
TRIAL, PAST = ".trial", ".past"
# DAGs of this folder that no pipeline's file makes.
TAKEN = frozenset({"batch_image_inference", "imagebatch_orphans", "imagebatch_prune", "imagebatch_trends"})


class PipelineError(ValueError):
    """A pipeline cannot be what somebody has written.

    Args:
        key: the key at fault; empty where it is not one alone.
        reason: what is wrong with it, and what is allowed.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)


@dataclass(frozen=True, kw_only=True)
class Option:
    """What may stand in a field of `Pipeline`, and who gets it.

    Attributes:
        says: one sentence for the trigger form and the docs.
        commands: of `imagebatch` that get it as a flag; `check_images` is `check` of the suite `images`.
        title: of its field in the trigger form; empty: only the pipeline's file sets it.
        least: smallest number.
        most: largest number, or longest text.
        above: number that it must be above.
        pattern: of a text.
        shape: the pattern in words, with an example.
        encoding: it must name an encoding of text.
        of_lists: it is about a manifest, and means nothing where an input is scored.
    """

    says: str
    commands: tuple[str, ...] = ()
    title: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    pattern: str = ""
    shape: str = ""
    encoding: bool = False
    of_lists: bool = False


def option(default: Any, says: str, *commands: str, **more: Any) -> Any:
    """Declare a field of `Pipeline`; None leaves the value to the installation's settings."""
    return field(default=default, metadata={"option": Option(says=says, commands=commands, **more)})


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One batch DAG: a field for each key of its file, in the order of the trigger form.

    Raises:
        PipelineError: a value that the DAG or `imagebatch` would refuse: the key, and what is allowed.
    """

    dag_id: str = option(
        MISSING, "The DAG's name.", pattern=DAG_ID, shape="at most 100 letters, digits, '.', '_' and '-'"
    )
    description: str = option(
        "Scores images in bulk and proves that none was lost", "One line for the UI.", most=1000
    )
    input: str = option(
        "",
        "Folder, single image or fsspec URI to list; {date} in it stands for the run's day. Not used where a"
        " manifest is given.",
        "preprocess",
        title="Input",
        most=LONGEST,
    )
    manifest: str = option(
        "",
        "List with a column `uri` and, optionally, `image_id`: CSV, JSON lines, Parquet, XLSX; {date} as in"
        " the input.",
        "preprocess",
        title="Manifest",
        most=LONGEST,
    )
    uri_column: str | None = option(
        None,
        "The manifest's column that names the images; empty: uri.",
        "preprocess",
        title="Column of names",
        most=LONGEST,
        of_lists=True,
    )
    id_column: str | None = option(
        None,
        "The manifest's column of ids; empty: image_id, if there is one.",
        "preprocess",
        title="Column of ids",
        most=LONGEST,
        of_lists=True,
    )
    carry: str | None = option(
        None,
        "Comma-separated further columns of the manifest to carry into the predictions; all: every one.",
        "preprocess",
        title="Columns to carry",
        most=LONGEST,
        of_lists=True,
    )
    list_encoding: str | None = option(
        None,
        "Encoding of the manifest, as cp1252; empty: UTF-8, or what its first bytes say.",
        "preprocess",
        title="Encoding of the manifest",
        most=40,
        encoding=True,
        of_lists=True,
    )
    include: str | None = option(
        None,
        "Comma-separated name patterns to take from a folder; empty: every kind of image that is read.",
        "preprocess",
        title="Name patterns",
        most=LONGEST,
    )
    model: str = option(
        "solar-cells",
        "Name of the served model.",
        "preprocess",
        title="Model",
        pattern=NAME,
        shape="letters, digits, '.', '_' and '-', such as solar-cells",
    )
    model_version: str = option(
        "",
        "Version of the model; empty in the pipeline too: the server's default version.",
        "preprocess",
        title="Model version",
        pattern=VERSION,
        shape="at most 64 letters, digits, '.', '_' and '-', such as \"1.0\"",
    )
    # A mapped task costs about two CPU-seconds, whatever it scores. A million images stay below Airflow's
    # limit of 1,024 mapped tasks.
    shard_size: int = option(
        4096, "Images per mapped task.", "preprocess", title="Shard size", least=1, most=100_000
    )
    limit: int = option(
        0,
        "Take only the first N images by id; 0 takes all.",
        "preprocess",
        title="Limit",
        least=0,
        most=100_000_000,
    )
    top_k: int = option(4, "Most probable first.", "preprocess", title="Labels per image", least=1, most=100)
    allow_empty: bool = option(
        False,  # noqa: FBT003 - the default of a switch
        "An input without any image is no failure: the run's tasks are skipped, and there is no table.",
        "preprocess",
        title="May be empty",
    )
    max_failures: str = option(
        "5%",
        "Failed and rejected images tolerated: a count (20) or a share (5%).",
        "preprocess",
        title="Failure limit",
        pattern=ALLOWANCE,
        shape="a count such as 20, or a share such as 5%",
    )
    max_class_share: float | None = option(
        None,
        "Largest share of one class among 100 or more predictions, from 0 to 1; empty: 0.98.",
        "preprocess",
        title="Class share limit",
        above=0,
        most=1,
    )
    max_consecutive_failures: int | None = option(
        None,
        "Stop after more failures in a row; 0 or empty: any number.",
        "score",
        title="Failures in a row",
        least=0,
        most=100_000_000,
    )
    max_suspect_images: str | None = option(
        None,
        "Suspect images (blank, dark, blurred …) tolerated in the sample looked at: a count or a share.",
        "check_images",
        title="Suspect image limit",
        pattern=ALLOWANCE,
        shape="a count such as 20, or a share such as 5%",
    )
    max_image_bytes: int | None = option(
        None,
        "Reject larger files; empty: 64 MiB.",
        "preprocess",
        title="Largest file, bytes",
        least=1,
        most=2**31,
    )
    max_image_pixels: int | None = option(
        None,
        "Reject larger images, width times height; empty: the installation's limit.",
        "preprocess",
        title="Largest image, pixels",
        least=1,
        most=2**31,
    )
    pack_size: int = option(
        128, "Does not change the result.", "score", title="Images per request", least=1, most=1024
    )
    in_flight: int = option(
        3, "Per shard. Does not change the result.", "score", title="Requests in flight", least=1, most=256
    )

    allowed_roots: str | None = option(
        None,
        "Comma-separated folders or URIs that images may come from, in place of the installation's.",
        "preprocess",
        most=LONGEST,
    )
    class_index: bool | None = option(
        None, "Write the numbers of the classes, too, as class_index_1 and so on.", "preprocess"
    )
    backend: str | None = option(
        None,
        "Kind of model API (docs/reference/model-apis.md).",
        "preprocess",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)",
        shape="a name such as torchserve or local",
    )
    model_archive: str | None = option(
        None, "Backend local: the .mar file, run as code.", "preprocess", "score", most=LONGEST
    )
    model_card: str | None = option(
        None, "File that says of a model what its server does not.", "preprocess", "score", most=LONGEST
    )
    request_template: str | None = option(
        None, "Backend http: the file that describes its requests.", "preprocess", "score", most=LONGEST
    )
    local_workers: int | None = option(
        None, "Backend local: worker processes; 0: one per core.", "preprocess", "score", least=0, most=1024
    )
    golden: str | None = option(
        None, "File of golden images, asked about before the first row.", "score", most=LONGEST
    )
    cache: str | None = option(None, "Folder that keeps predictions from run to run.", "score", most=LONGEST)
    embeddings: int | None = option(
        None, "Images whose embeddings are asked for, for drift; 0: none.", "score", least=0, most=1_000_000
    )
    image_sample: int | None = option(
        None,
        "Images to decode for checks and drift; 0: all.",
        "check_images",
        "report",
        least=0,
        most=1_000_000,
    )
    baseline: str | None = option(
        None, "File that imagebatch baseline wrote, to judge drift.", "report", most=LONGEST
    )
    drift_alpha: float | None = option(
        None, "Probability that a run without any drift is called drifting.", "report", above=0, most=0.999
    )

    schedule: str = option(NIGHTLY, 'Cron expression in UTC; "": only by hand.')
    owner: str = option("imagebatch", "Whose the DAG is, for the UI.", most=200)
    tags: list[str] = field(
        default_factory=list, metadata={"option": Option(says="More tags for the UI.", most=100)}
    )
    retries: int = option(3, "Times that a failed task is tried again.", least=0, most=100)
    parallel_shards: int = option(4, "Shards of one run scored at once.", least=1, most=1024)
    warn_after_minutes: float = option(30, "The first deadline, after queueing.", above=0, most=525_600)
    late_after_minutes: float = option(60, "The second deadline, after queueing.", above=0, most=525_600)
    stage_timeout_minutes: float = option(
        240, "A task that runs longer is stopped and retried.", above=0, most=525_600
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            check(each, getattr(self, each.name))
        if self.dag_id.endswith((TRIAL, PAST)):
            raise PipelineError("dag_id", f"{self.dag_id!r} may not end in {TRIAL} or {PAST}")
        if bool(self.input) == bool(self.manifest):
            raise PipelineError("input", "give one of input and manifest")
        for key in ("input", "manifest"):
            if mistake := mistake_in(getattr(self, key)):
                raise PipelineError(key, f"{mistake} is no date that is known; use {PLACEHOLDERS}")
        if self.warn_after_minutes >= self.late_after_minutes:
            raise PipelineError(
                "warn_after_minutes", f"{self.warn_after_minutes:g} must be below late_after_minutes"
            )
        _check_schedule(self.schedule)

    @property
    def dated(self) -> bool:
        """Whether each day has an input of its own."""
        return names_a_date(self.input or self.manifest)


OPTIONS: Mapping[str, Field[Any]] = MappingProxyType({each.name: each for each in fields(Pipeline)})


def option_of(each: Field[Any]) -> Option:
    """Give what a field of `Pipeline` allows."""
    found: Option = each.metadata["option"]
    return found


def kind_of(each: Field[Any]) -> Any:
    """Give the type of a field, without None."""
    kinds = [kind for kind in get_args(each.type) if kind is not NoneType]
    return kinds[0] if kinds and NoneType in get_args(each.type) else each.type


def may_be_none(each: Field[Any]) -> bool:
    """Tell whether a field may leave its value to the installation."""
    return NoneType in get_args(each.type)


def check(each: Field[Any], value: Any) -> None:
    """Refuse a value that a field of `Pipeline` does not take.

    Raises:
        PipelineError: it names the key and what is allowed.
    """
    if value is None and may_be_none(each):
        return
    kind, allows = kind_of(each), option_of(each)
    if kind is str:
        _check_text(each.name, value, allows)
    elif kind is bool:
        if not isinstance(value, bool):
            raise PipelineError(each.name, f"must be true or false, not {shown(value)}")
    elif kind in {int, float}:
        _check_number(each.name, value, kind, allows)
    else:
        _check_texts(each.name, value, allows)


def shown(value: Any) -> str:
    """Show a value of a file, bounded: what is nested is named, not written out."""
    names = {dict: "a mapping", list: "a list", NoneType: "nothing"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004 - a line of a log


def _check_text(key: str, value: Any, allows: Option) -> None:
    if not isinstance(value, str):
        hint = "" if isinstance(value, dict | list | NoneType) else f': put it in quotes, "{shown(value)}"'
        raise PipelineError(key, f"must be text, not {shown(value)}{hint}")
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in value):
        raise PipelineError(key, f"{shown(value)} holds a control character")
    if allows.most is not None and len(value) > allows.most:
        raise PipelineError(key, f"has {len(value)} characters, at most {allows.most:g} are allowed")
    if allows.encoding and not _names_an_encoding(value):
        raise PipelineError(
            key, f"{shown(value)} must be an encoding of text, such as utf-8, utf-16 or cp1252"
        )
    if allows.pattern and not re.search(allows.pattern, value):
        raise PipelineError(key, f"{shown(value)} must be {allows.shape}")


def _names_an_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def _check_number(key: str, value: Any, kind: type, allows: Option) -> None:
    wanted = "a whole number" if kind is int else "a number"
    if allows.above is not None:
        wanted += f" above {allows.above:g} and at most {allows.most:,g}"
    else:
        wanted += f" from {allows.least:,g} to {allows.most:,g}"
    right = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if right and math.isfinite(value):
        low = value > allows.above if allows.above is not None else value >= (allows.least or 0)
        right = low and value <= (allows.most or math.inf)
    else:
        right = False
    if not right:
        raise PipelineError(key, f"must be {wanted}, not {shown(value)}")


def _check_texts(key: str, value: Any, allows: Option) -> None:
    if not isinstance(value, list):
        raise PipelineError(key, f"must be a list such as [a, b], not {shown(value)}")
    for one in value:
        _check_text(key, one, allows)
        if not one:
            raise PipelineError(key, "holds an empty text")


def _check_schedule(cron: str) -> None:
    if not cron:
        return
    advice = f'five fields (minute hour day month weekday) such as "{NIGHTLY}", or "" for by hand only'
    if cron not in PRESETS and len(cron.split()) != CRON_FIELDS:
        raise PipelineError("schedule", f"{shown(cron)} has {len(cron.split())} fields: write {advice}")
    try:
        croniter(cron, datetime.now(UTC)).get_next(datetime)
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError("schedule", f"{shown(cron)} is no time ({reason}): write {advice}") from error
