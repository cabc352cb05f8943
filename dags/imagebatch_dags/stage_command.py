"""What every operator of a stage has in common: the command line that it starts."""

from typing import Any


class StageCommand:
    """Gives an operator of a stage its command line.

    Attributes:
        command: Arguments of `imagebatch`, templated; an empty one is left out.
        shard: Shard number to add as `--shard`, for mapped tasks.
    """

    command: Any
    shard: int | None

    @property
    def stage_arguments(self) -> list[str]:
        """The command with its shard, as the stage's parser will see it."""
        command = [part for part in self.command or [] if part]
        return command if self.shard is None else [*command, f"--shard={self.shard}"]
