"""The model server, asked by `imagebatch`: a command that answers with an exit code and one line of JSON."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagebatch_training.errors import (
    ConfigurationError,
    DataError,
    NothingToCompareError,
    ServerError,
    TrainingError,
)

_NEXT_DOOR = Path(__file__).resolve().parents[4] / "pipeline_image" / ".venv" / "bin" / "imagebatch"
_LONGEST = 900  # seconds of one command: workers that load, images that are scored
_KINDS: dict[int, type[TrainingError]] = {
    2: ConfigurationError,
    65: DataError,
    78: ConfigurationError,
    99: NothingToCompareError,
}
_UNKNOWN = "does not serve that"


@dataclass(frozen=True, kw_only=True)
class Server:
    """One TorchServe, and the store that it loads archives from.

    Attributes:
        model: Name of the model.
        store: Folder of the archives, as this machine sees it.
        workers: Worker processes of a version that is registered.
        flags: Where the server is and how to be let in, as flags of `imagebatch models`; what is not among
            them is taken from its variables.
    """

    model: str
    store: Path
    workers: int
    flags: tuple[str, ...] = field(default=())

    def digest(self, version: str = "") -> str:
        """Return the digest that a version tells of itself; empty: it is not served.

        Args:
            version: Empty: the default.

        Raises:
            TrainingError: The server does not answer, or refuses.
        """
        return _digest(self._described(version)) or ""

    def default(self) -> str:
        """Return the default version; empty where the model is not served."""
        described = self._described("")
        return str(described.get("modelVersion", "")) if described else ""

    def register(self, archive: str) -> None:
        """Load an archive beside what is served; one that cannot be loaded is not registered afterwards.

        Raises:
            TrainingError: It cannot be loaded: its worker's own reason.
        """
        self.ask("models", "register", "--archive", archive, "--workers", str(self.workers), *self.flags)

    def unregister(self, version: str) -> None:
        """Take a version that is not the default away; one that is not there is no error."""
        if self._described(version):
            self._models("unregister", "--model-version", version)

    def probe(self, version: str, golden: Path) -> int:
        """Ask a version about its golden images; return how many there are."""
        told = self._models("probe", "--model-version", version, "--golden", str(golden))
        return int(told["images"])

    def set_default(self, version: str) -> None:
        """Make a version the default, also after a restart."""
        self._models("set-default", "--model-version", version, "--model-store", str(self.store))

    def remember_default(self) -> None:
        """Keep the default of now: a server that starts again amid a release must not take the new one."""
        if not (self.store / f"{self.model}.serving.json").is_file() and (before := self.default()):
            self.set_default(before)

    def roll_back(self) -> str:
        """Make the earlier default the default again; return its version."""
        told = self._models("rollback", "--model-store", str(self.store), "--workers", str(self.workers))
        return str(told["default"])

    def shadow(self, new: str, old: str, arguments: list[str]) -> dict[str, Any]:
        """Compare two versions on images of a finished run; return the figures.

        Raises:
            NothingToCompareError: There is no such run.
        """
        versions = ["--model", self.model, "--model-version", new, "--against", old]
        return self.ask("shadow", *versions, *arguments, *self.flags)

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Run `imagebatch`.

        Returns:
            The JSON of its last line.

        Raises:
            TrainingError: It failed: its own last line, with its own exit code where there is a kind of it.
        """
        environment = {name: text for name, text in os.environ.items() if name not in _OWN}
        try:
            done = subprocess.run(  # noqa: S603 - no shell, our own arguments
                [_executable(), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"imagebatch {arguments[0]} {arguments[1]} took over {_LONGEST} s") from error
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("imagebatch: ")
            raise _KINDS.get(done.returncode, ServerError)(said)
        told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return told

    def _described(self, version: str) -> dict[str, Any] | None:
        arguments = ["--model-version", version] if version else []
        try:
            found: dict[str, Any] = self._models("describe", *arguments)
        except ConfigurationError as error:
            if _UNKNOWN in str(error):
                return None
            raise
        return found

    def _models(self, action: str, *arguments: str) -> Any:
        return self.ask("models", action, "--model", self.model, *arguments, *self.flags)["answer"]


# Variables that are about one run, or about other archives: the flags say which are meant here.
_OWN = ("IMAGEBATCH_MODEL", "IMAGEBATCH_MODEL_VERSION", "IMAGEBATCH_TRACKING_URI", "IMAGEBATCH_GOLDEN")


def _executable() -> str:
    """Find the command: `IMAGEBATCH_BIN`, the PATH's, or the checkout's own."""
    named = os.environ.get("IMAGEBATCH_BIN", "imagebatch")
    found = shutil.which(named) or (str(_NEXT_DOOR) if _NEXT_DOOR.is_file() else None)
    if found is None:
        raise ConfigurationError(f"no command {named}: install imagebatch, set IMAGEBATCH_BIN, or --no-serve")
    return found


def _digest(described: dict[str, Any] | None) -> str | None:
    told: Any = (described or {}).get("customizedMetadata")
    try:
        content: Any = json.loads(told) if isinstance(told, str) else told
        return str(content["model"]["digest"])
    except (ValueError, KeyError, TypeError):
        return None
