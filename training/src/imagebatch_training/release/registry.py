"""MLflow's model registry: versions of a released model with their tags, and the aliases that move."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

# First: it sets what MLflow reads when it is imported.
from imagebatch_training.fit.tracking import open_experiment  # isort: skip
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from imagebatch_training.errors import ConfigurationError, ServerError
from imagebatch_training.settings import Tracking, tracking_uri

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
VERSION, DIGEST, ARCHIVE = "imagebatch.version", "imagebatch.digest", "imagebatch.archive"
WEIGHTS, STATUS = "imagebatch.weights_sha256", "imagebatch.status"
RELEASED = "released"
"""The status of a version that has been champion: its number and its archive belong together for good."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A registered version.

    Attributes:
        number: Of the registry, from 1.
        tags: Of `VERSION`, `DIGEST` and the other names above, what is known.
    """

    number: str
    tags: Mapping[str, str]

    @property
    def version(self) -> str:
        """On the model server."""
        return self.tags.get(VERSION, "")

    @property
    def digest(self) -> str:
        """That the model server tells of it."""
        return self.tags.get(DIGEST, "")

    @property
    def archive(self) -> str:
        """Its file in the model store."""
        return self.tags.get(ARCHIVE, "")


class Registry:
    """The versions of one model.

    Args:
        tracking: Where MLflow is.
        model: The registered model's name, which is that on the model server.

    Raises:
        ConfigurationError: MLflow does not answer.
    """

    def __init__(self, tracking: Tracking, model: str) -> None:
        open_experiment(tracking)
        self._model = model
        self._client = MlflowClient(tracking_uri(tracking), registry_uri=tracking_uri(tracking))

    def entries(self) -> list[Entry]:
        """List all versions, newest first."""
        with _answering():
            found = self._client.search_model_versions(f"name='{self._model}'")
        return sorted(map(_entry, found), key=lambda entry: -int(entry.number))

    def known_as(self, version: str) -> Entry | None:
        """Return the newest entry with a version of the model server."""
        return next((entry for entry in self.entries() if entry.version == version), None)

    def named(self, alias: str) -> Entry | None:
        """Return the version that an alias names; None where there is none."""
        with _answering():
            known = self._client.search_registered_models(f"name='{self._model}'")
            number = known[0].aliases.get(alias) if known else None
            return _entry(self._client.get_model_version(self._model, number)) if number else None

    def register(self, run_id: str, tags: Mapping[str, str]) -> Entry:
        """Register a training's model.

        Args:
            run_id: Of MLflow's run; its artifacts hold the trained weights.
            tags: Of the version.
        """
        with _answering():
            if not self._client.search_registered_models(f"name='{self._model}'"):
                self._client.create_registered_model(self._model)
            source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
            made = self._client.create_model_version(self._model, source, run_id, tags=dict(tags))
            return _entry(made)

    def mark(self, entry: Entry, status: str) -> None:
        """Keep what has become of a version."""
        with _answering():
            self._client.set_model_version_tag(self._model, entry.number, STATUS, status[:500])

    def move(self, alias: str, entry: Entry | None) -> None:
        """Let an alias name a version; None: no version any more."""
        with _answering():
            if entry:
                self._client.set_registered_model_alias(self._model, alias, entry.number)
            elif self.named(alias):
                self._client.delete_registered_model_alias(self._model, alias)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        text = " ".join(str(error).split())[:200]
        refused = error.error_code in {
            "INVALID_PARAMETER_VALUE",
            "RESOURCE_DOES_NOT_EXIST",
            "PERMISSION_DENIED",
        }
        kind = ConfigurationError if refused else ServerError
        raise kind(f"MLflow's model registry: {text}") from error


def _entry(found: ModelVersion) -> Entry:
    return Entry(number=str(found.version), tags=dict(found.tags))
