"""From the champion to the challenger: served beside it, looked at, promoted; or taken back."""

from collections.abc import Callable
from dataclasses import dataclass

from imagebatch_training.errors import ConfigurationError, NothingToCompareError, TrainingError
from imagebatch_training.release.candidate import Candidate, Champion
from imagebatch_training.release.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RELEASED,
    STATUS,
    Entry,
    Registry,
)
from imagebatch_training.release.server import Server
from imagebatch_training.release.told import Told
from imagebatch_training.settings import RELEASE_STEPS


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How far to go, and with which server.

    Attributes:
        server: None: the registry alone is told.
        until: The last step to do.
        shadow: Arguments of `imagebatch shadow` beside the versions; empty: nothing is compared.
    """

    server: Server | None
    until: str = RELEASE_STEPS[-1]
    shadow: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Handover:
    """One challenger's way into service.

    Attributes:
        candidate: Its archive.
        entry: In the registry.
        kept: Version that serves if this one fails; empty: none.
        registry: Where the aliases are.
        asked: How far, and where.
        told: What is said of it.
    """

    candidate: Candidate
    entry: Entry
    kept: str
    registry: Registry
    asked: Asked
    told: Told

    def go(self, champion: Champion | None) -> None:
        """Do every step that is asked for; on a failure, take the challenger back.

        Args:
            champion: What serves now; None: nothing does.

        Raises:
            TrainingError: A step has failed; its line says what is served now.
        """
        try:
            if self.asked.server:
                self.asked.server.remember_default()
            self.candidate.put_into_store()
            if self.asked.server:
                for step, do in _SERVING:
                    do(self, champion, self.asked.server)
                    if self.asked.until == step:
                        return
            elif self.asked.until != RELEASE_STEPS[-1]:
                return
            self._promote()
        except TrainingError as error:
            if champion and champion.digest == self.candidate.record["digest"]:
                raise  # it was champion before this command, and is
            raise type(error)(f"{error}; {self._undone(str(error))}") from error

    def take_back(self, status: str) -> None:
        """Take the challenger away from the server, the store and the registry, in this order.

        Args:
            status: What the registry keeps of it.
        """
        server, version = self.asked.server, self.candidate.version
        if server:
            if self.kept and server.default() == version:
                server.set_default(self.kept)
            server.unregister(version)
        if self.entry.tags.get(STATUS) != RELEASED:  # one that was champion once may be so again
            self.candidate.take_out_of_store()
            self.registry.mark(self.entry, status)
        if self._is(CHALLENGER):
            self.registry.move(CHALLENGER, None)

    def serve(self, _: Champion | None, server: Server) -> None:
        """Register it beside what serves."""
        version = self.candidate.version
        before, digest = server.default(), server.digest(version)
        if digest and digest != self.candidate.record["digest"]:
            raise ConfigurationError(
                f"the server has another archive registered as {self.candidate.name} {version}: unregister it"
            )
        if not digest:
            server.register(self.candidate.archive.name)
        beside = f"beside {before}, the default" if before not in {"", version} else "alone"
        self.told.step("serve", f"{version} is registered, {beside}", version=version)

    def probe(self, _: Champion | None, server: Server) -> None:
        """Ask it about its golden images."""
        images = server.probe(self.candidate.version, self.candidate.golden)
        self.told.step("probe", f"{images} golden images answered as in the archive", images=images)

    def shadow(self, champion: Champion | None, server: Server) -> None:
        """Ask both versions about a run's images."""
        if champion is None or champion.digest == self.candidate.record["digest"] or not self.asked.shadow:
            said = "no --shadow-runs" if champion and not self.asked.shadow else "nothing to compare with"
            self.told.step("shadow", said)
            return
        try:
            found = server.shadow(self.candidate.version, champion.version, list(self.asked.shadow))
        except NothingToCompareError as error:
            self.told.step("shadow", str(error))
            return
        self.told.step(
            "shadow",
            f"another answer than {champion.version}'s on {found['different']} of {found['images']} images of"
            f" {found['run']}: {found['page']}",
            **{key: found[key] for key in ("different", "images", "run", "page")},
        )

    def _promote(self) -> None:
        """Set the default, and then the alias: a batch that begins in between takes the older of the two."""
        version = self.candidate.version
        if self.asked.server:
            self.asked.server.set_default(version)
        if not self._is(CHAMPION):
            self.registry.mark(self.entry, RELEASED)
            self.registry.move(PREVIOUS, self.registry.named(CHAMPION))
            self.registry.move(CHALLENGER, None)
            self.registry.move(CHAMPION, self.entry)  # the last: what fails before leaves the champion
        was = f", {self.kept} before" if self.kept not in {"", version} else ""
        self.told.step(
            "promote",
            f"{self.candidate.name} {version} is the {CHAMPION}{was}",
            champion=version,
            before=self.kept or None,
        )

    def _undone(self, why: str) -> str:
        """Take a failed challenger back; say in a few words what is so now."""
        version = self.candidate.version
        try:
            self.take_back(f"failed: {why}")
        except TrainingError as error:
            return f"and {version} could not be taken back: {error}"
        return f"{version} is not served{f', {self.kept} is as before' if self.kept else ''}"

    def _is(self, alias: str) -> bool:
        named = self.registry.named(alias)
        return named is not None and named.number == self.entry.number


_SERVING: tuple[tuple[str, Callable[[Handover, Champion | None, Server], None]], ...] = (
    ("serve", Handover.serve),
    ("probe", Handover.probe),
    ("shadow", Handover.shadow),
)
