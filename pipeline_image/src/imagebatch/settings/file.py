"""Read a file of settings, as `imagebatch tune` writes it: `IMAGEBATCH_NAME=value`, or a comment with a `#`.

Docker's --env-file takes the same form: no quotes, nothing after the value. Flags and variables win over it.
One file serves every command, so a name that only another command takes is passed over. A name that no
command takes is an error: passed over, a mistyped line would change nothing, in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from typing_extensions import override

from imagebatch.errors import ConfigurationError

PREFIX = "IMAGEBATCH_"


class SettingsFile(PydanticBaseSettingsSource):
    """Source of lowest rank: what the file says that an earlier source names.

    Args:
        settings: The command's settings.
        root: The class whose subclasses hold the settings of all commands.
    """

    def __init__(self, settings: type[BaseSettings], root: type[BaseSettings]) -> None:
        super().__init__(settings)
        self._root = root

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # __call__ reads all at once

    @override
    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("settings_file")
        values = read_settings(str(path)) if path else {}
        unknown = values.keys() - _names(self._root)
        if unknown:
            name = f"{PREFIX}{min(unknown).upper()}"
            raise ConfigurationError(f"--settings-file {path}: no command has a setting {name}")
        return {name: value for name, value in values.items() if name in self.settings_cls.model_fields}


def read_settings(path: str) -> dict[str, str]:
    """Read the lines of a settings file.

    Returns:
        Values by the setting's name, in small letters.

    Raises:
        ConfigurationError: There is no such file, or a line is no setting.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--settings-file {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    for line in wanted:
        if not line.startswith(PREFIX) or "=" not in line:
            raise ConfigurationError(f"--settings-file {path}: {line[:80]!r} is not {PREFIX}NAME=value")
    pairs = (line.removeprefix(PREFIX).split("=", 1) for line in wanted)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _names(kind: type[BaseSettings]) -> set[str]:
    """Name the settings of a class and of all its subclasses."""
    return set(kind.model_fields).union(*map(_names, kind.__subclasses__()))
