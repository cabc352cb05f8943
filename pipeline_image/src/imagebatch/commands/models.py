"""`imagebatch models`: the model server's management API as a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imagebatch.errors import ConfigurationError, ImagebatchError, StorageError
from imagebatch.log import get_logger
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.torchserve.management import Management
from imagebatch.model_apis.torchserve.serving import Served, Serving, read_serving, write_serving
from imagebatch.registry import CHAMPION, Reference, Registry
from imagebatch.settings import ModelsSettings

log = get_logger()


def models(settings: ModelsSettings) -> Any:
    """Do one action and return the server's answer, as JSON types."""
    return _ACTIONS[settings.action](settings, Management(settings))


def _set_default(settings: ModelsSettings, management: Management) -> Any:
    """Make a version the default, and remember it with the one before, where the store is at hand."""
    name, version = settings.model, settings.model_version
    if not settings.model_store:
        log.warning("a restart of the server forgets the default: give --model-store", model=name)
        return management.make_default(name, version)
    known = read_serving(settings.model_store, name)
    before = management.default(name)
    answer = management.make_default(name, version)
    new = management.default(name)
    if known is None or known.default != before:  # set without the store, or by another client
        known = Serving(default=before, previous=known.previous if known else None)
    _remember(settings, management, known.moved_to(new), before)
    return answer


def _remember(settings: ModelsSettings, management: Management, serving: Serving, before: Served) -> None:
    try:
        write_serving(settings.model_store, settings.model, serving)
    except StorageError as error:
        management.make_default(settings.model, before.version)
        raise StorageError(f"{error}; {settings.model} {before.version} stays the default") from error


def _roll_back(settings: ModelsSettings, management: Management) -> dict[str, Any]:
    """Make the previous default the default again; a second time, forward again.

    Raises:
        ConfigurationError: No earlier default is known, or its archive cannot be loaded.
    """
    name = settings.model
    if not settings.model_store:
        raise ConfigurationError(
            "models rollback needs --model-store, where the earlier default is remembered;"
            " models set-default --model-version makes any version the default"
        )
    known = read_serving(settings.model_store, name)
    if known is None or known.previous is None:
        raise ConfigurationError(
            f"no earlier default of {name} is remembered in {settings.model_store}: choose one with"
            " imagebatch models set-default --model-version"
        )
    back = known.previous
    if not management.serves(name, back.version):
        management.register(back.archive, settings.workers)
    before = management.default(name)
    management.make_default(name, back.version)
    _remember(settings, management, known.moved_to(back), before)
    told = {"model": name, "default": back.version, "before": before.version}
    if settings.tracking_uri:
        _move_champion(settings, back.version)
        told["champion"] = back.version
    return told


def _move_champion(settings: ModelsSettings, version: str) -> None:
    try:
        Registry(settings.tracking_uri).move(Reference(settings.model, CHAMPION), version)
    except ImagebatchError as error:
        raise type(error)(
            f"{settings.model} {version} is the server's default again, but the alias {CHAMPION} is where it"
            f" was: {error}"
        ) from error


def _probe(settings: ModelsSettings, _: Management) -> dict[str, Any]:
    """Ask one version about golden images.

    Raises:
        ConfigurationError: There are none, or they belong to another archive.
        ModelChangedError: An answer is another than the archive's.
    """
    from imagebatch.scorer.golden import probe_version  # noqa: PLC0415 (the other actions need no scorer)

    if not settings.golden:
        raise ConfigurationError("models probe needs --golden FILE, which lies beside the archive")
    api = open_backend("torchserve", settings, settings.model, settings.model_version)
    pin, images = probe_version(settings.golden, api, settings.retry_seconds)
    return {"model": pin.name, "version": pin.version, "digest": pin.digest, "images": images}


_ACTIONS: dict[str, Callable[[ModelsSettings, Management], Any]] = {
    "list": lambda _, server: server.list(),
    "describe": lambda asked, server: server.describe(asked.model, asked.model_version),
    "register": lambda asked, server: server.register(asked.archive, asked.workers),
    "default": _set_default,
    "set-default": _set_default,
    "rollback": _roll_back,
    "probe": _probe,
    "unregister": lambda asked, server: server.unregister(asked.model, asked.model_version),
    "scale": lambda asked, server: server.scale(asked.model, asked.model_version, asked.workers),
}
