"""What was handed out of a run and what came back: a small file beside the runs, which stays."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from imagebatch.contracts.layout import LABELS, review_path
from imagebatch.errors import NotProvenError
from imagebatch.runs.folder import open_run


class Agreement(BaseModel):
    """How often people gave the label that the model had given.

    Attributes:
        labelled: Images with a label.
        right: Of these, those whose label is the model's.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    labelled: int
    right: int


class MeasuredAccuracy(BaseModel):
    """A run's accuracy, measured on its random sample.

    Attributes:
        sample: Images drawn.
        labelled: Of these, those with a label.
        right: Of these, those whose label is the model's.
        accuracy: Share of right ones among the labelled ones.
        low: Lower end of its 95 % interval (Wilson 1927), as if all images without a label were wrong.
        high: Upper end, as if all of them were right.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sample: int
    labelled: int
    right: int
    accuracy: float
    low: float
    high: float

    def figures(self) -> dict[str, float | int]:
        """Return the fields of a run's summary that say how accurate it was."""
        ends = {"accuracy_low": self.low, "accuracy_high": self.high}
        counts = {"accuracy_labelled": self.labelled, "accuracy_right": self.right}
        return {"accuracy": self.accuracy, **ends, **counts}


class Review(BaseModel):
    """Where the review of a run stands.

    Attributes:
        run_id: The run.
        sample: Size of the largest sample that was handed out; 0: none was.
        imported: When labels were last read back, in UTC.
        queue: Of the images that are not of the sample. They were chosen because they are hard: what is right
            of them says nothing about the run.
        accuracy: Of the run; None: no label of the sample is there.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    sample: int = 0
    imported: datetime | None = None
    queue: Agreement | None = None
    accuracy: MeasuredAccuracy | None = None


def read_review(runs_uri: str, run_id: str) -> Review:
    """Read where the review of a run stands; one in which nothing has happened yet if there is none.

    Raises:
        NotProvenError: The file is not what was written.
        StorageError: It cannot be read.
    """
    folder = open_run(runs_uri, LABELS)
    try:
        return Review.model_validate_json(folder.read(review_path(run_id)))
    except FileNotFoundError:
        return Review(run_id=run_id)
    except ValidationError as error:
        raise NotProvenError(
            f"{folder.uri}/{review_path(run_id)} is not what imagebatch labels wrote"
        ) from error


def keep_review(runs_uri: str, review: Review) -> None:
    """Write where the review of a run stands."""
    folder = open_run(runs_uri, LABELS)
    folder.write(review_path(review.run_id), (review.model_dump_json(indent=1) + "\n").encode())
