"""Which version of the model a run is made with: the one that is asked for, or that an alias names now."""

from __future__ import annotations

from dataclasses import dataclass

from imagebatch.contracts.records import ModelPin, Released, RunDescription
from imagebatch.errors import ConfigurationError, ModelApiUnavailableError, ModelChangedError
from imagebatch.log import get_logger
from imagebatch.registry import Reference, Registered, Registry, RegistryRefusedError, parse_reference
from imagebatch.settings import PreprocessSettings

log = get_logger()


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model to ask for.

    Attributes:
        name: On the model server.
        version: On the model server; empty: the server's default.
        released: What the registry said of it; None where it was not asked.
        digest: That the server must tell of it; empty: any.
    """

    name: str
    version: str
    released: Released | None = None
    digest: str = ""

    def require(self, pin: ModelPin) -> None:
        """Refuse another archive under the released version's number.

        Raises:
            ModelChangedError: The server's digest is not the registry's.
        """
        if self.digest and pin.digest != self.digest:
            raise ModelChangedError(
                f"the registry knows {self.name} {self.version} as {self.digest}, the server serves"
                f" {pin.digest} under this version: release it again, under another one"
            )


def choose_model(settings: PreprocessSettings, begun: RunDescription | None) -> ChosenModel:
    """Ask the registry once, at the start of a run: an alias that moves later moves no run.

    `champion` is what the server has as its default, too, so that a batch goes on where there is no registry,
    no such alias, or no answer that this client may have.

    Args:
        settings: `model` and `model_version`; a version that is given wins over an alias.
        begun: run.json of an earlier attempt, whose version is kept.

    Raises:
        ConfigurationError: Another alias than `champion` cannot be found, or the registry refuses.
        ModelApiUnavailableError: The registry does not answer, and another alias is asked for.
    """
    reference = parse_reference(settings.model)
    if reference is None:
        return ChosenModel(settings.model, settings.model_version)
    if settings.model_version:
        return ChosenModel(reference.model, settings.model_version)
    if begun and begun.model.name == reference.model:
        return ChosenModel(reference.model, begun.model.version, begun.released, begun.model.digest)
    found = _found(settings, reference)
    if found is None:
        return ChosenModel(reference.model, "")
    log.info("the registry names a version", asked=settings.model, version=found.version, number=found.number)
    released = Released(reference=settings.model, registry_version=found.number)
    return ChosenModel(reference.model, found.version, released, found.digest)


def _found(settings: PreprocessSettings, reference: Reference) -> Registered | None:
    """Ask the registry; None where the server's default is taken instead."""
    try:
        found = Registry(settings.tracking_uri).named(reference) if settings.tracking_uri else None
    except (ModelApiUnavailableError, RegistryRefusedError) as error:
        if not reference.is_champion:
            raise
        log.warning("the server's default version is taken", asked=settings.model, because=str(error))
        return None
    if found or reference.is_champion:
        if not found:
            log.info("no champion is registered: the server's default version is taken", asked=settings.model)
        return found
    raise ConfigurationError(
        f"{settings.model}: the registry at {settings.tracking_uri} has no such alias"
        if settings.tracking_uri
        else f"{settings.model} needs --tracking-uri, the MLflow server that knows the alias"
    )
