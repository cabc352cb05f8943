"""What makes one batch DAG differ from another, as one YAML file or one call says it.

Every field of `Pipeline` is a key of a pipeline's file. One that names commands becomes their flag of the
same name (`--max-failures`), and one with a title is a field of the trigger form, too. So a new flag of
`imagebatch` is one entry here, and what is allowed stands beside it, for the file, the form and complaints.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from croniter import croniter

from imagebatch_dags.dates import PLACEHOLDERS, mistake_in, names_a_date
from imagebatch_dags.options import Option, PipelineError, check, option, shown

NIGHTLY = "0 2 * * *"
CRON_FIELDS = 5
PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
MODEL = rf"^({_NAME}|models:/{_NAME}@[A-Za-z0-9_-]{{1,64}})$(?!\n)"
DAG_ID = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,99}$(?!\n)"
VERSION = r"^[A-Za-z0-9._-]{0,64}$(?!\n)"
ALLOWANCE = r"^([0-9]{1,9}|(100|[0-9]{1,2})(\.[0-9]+)?%)$(?!\n)"
LONGEST = 4096  # characters of a path or an address
SOURCES = ("input", "manifest", "query")
# Runs that do not speak for the pipeline of tonight carry its name with one of these (night.py).
TRIAL, PAST = ".trial", ".past"
# DAGs of this folder that no pipeline's file makes.
TAKEN = frozenset(
    {"batch_image_inference", "imagebatch_orphans", "imagebatch_prune", "imagebatch_trends", "model_release"}
)


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
    # In the file alone: whoever may trigger a run is not for that reason one who may ask the database.
    query: str = option(
        "",
        "SQL that gives such a list, from the database that IMAGEBATCH_DATABASE_URL names; {date} as in the"
        " input. Wants allowed_roots.",
        "preprocess",
        most=LONGEST,
        lines=True,
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
        "models:/solar-cells@champion",
        "Name of the served model, or models:/NAME@ALIAS: the version that the registry says when the run"
        " begins; where there is no registry, @champion is the server's default version.",
        "preprocess",
        title="Model",
        pattern=MODEL,
        shape="letters, digits, '.', '_' and '-', such as solar-cells, or models:/solar-cells@champion",
    )
    model_version: str = option(
        "",
        "Version of the model; empty in the pipeline too: that of the alias, or the server's default.",
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
    review_below: str | None = option(
        None,
        "Mark predictions that the model is less sure of in a column review: a probability, or auto as the"
        " model declares; empty: no such column.",
        "preprocess",
        title="Review below",
        pattern=r"^(auto|1(\.0+)?|0?\.[0-9]*[1-9][0-9]*)$(?!\n)",
        shape='a probability such as "0.8", or auto',
    )
    pages: str | None = option(
        None,
        "Of a file with several pages or frames: model, the one that the model declares; all, each as an"
        " image of its own.",
        "preprocess",
        title="Pages",
        pattern=r"^(model|all)$(?!\n)",
        shape="model or all",
    )
    max_pages: int | None = option(
        None,
        "Reject files with more pages, where each is an image; empty: 1,000.",
        "preprocess",
        title="Most pages of a file",
        least=1,
        most=10_000,
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
        if [bool(getattr(self, key)) for key in SOURCES].count(True) != 1:
            raise PipelineError("input", "give one of input and manifest (or query)")
        if self.query and not (self.allowed_roots or os.environ.get("IMAGEBATCH_ALLOWED_ROOTS")):
            raise PipelineError("query", "give allowed_roots, too: a query has no folder of its own")
        for key in SOURCES:
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
        return names_a_date(self.input or self.manifest or self.query)


OPTIONS: Mapping[str, Field[Any]] = MappingProxyType({each.name: each for each in fields(Pipeline)})


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
