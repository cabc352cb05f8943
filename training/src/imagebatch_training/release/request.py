"""The command line of the verb `release`."""

import argparse
from pathlib import Path

from imagebatch_training.archive.mar import archive_name
from imagebatch_training.release.handover import Asked
from imagebatch_training.release.run import release, roll_back, withdraw
from imagebatch_training.release.server import Server
from imagebatch_training.release.told import Told
from imagebatch_training.settings import Settings

_SERVER = ("management-url", "api-url", "key-file")


def answer(settings: Settings, arguments: argparse.Namespace) -> Told:
    """Do what the command line asks for."""
    server = None if arguments.no_serve else _server(settings, arguments)
    if arguments.rollback:
        return roll_back(settings, server)
    if arguments.withdraw:
        return withdraw(settings, server)
    return release(settings, Asked(server=server, until=arguments.until, shadow=_shadow(arguments)))


def _server(settings: Settings, arguments: argparse.Namespace) -> Server:
    given = ((name, getattr(arguments, name.replace("-", "_"))) for name in _SERVER)
    flags = tuple(part for name, text in given if text for part in (f"--{name}", text))
    return Server(
        model=archive_name(settings.model),
        store=Path(settings.paths.model_store),
        workers=arguments.workers,
        flags=flags,
    )


def _shadow(arguments: argparse.Namespace) -> tuple[str, ...]:
    if not arguments.shadow_runs:
        return ()
    run = ("--run-id", arguments.shadow_run) if arguments.shadow_run else ()
    sample = ("--sample", str(arguments.shadow_images))
    return "--runs-uri", arguments.shadow_runs, *sample, "--output", str(arguments.shadow_page), *run
