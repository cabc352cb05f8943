from pathlib import Path
from typing import Any


def related(folder: Path) -> list[str]:
    """List the processes that name the stack's folder in their command, folder or variables."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            here = str((process / "cwd").readlink())
        except OSError:
            continue
        if process.name != "self" and (str(folder).encode() in text or here.startswith(str(folder))):
            found.append(f"{process.name} {(process / 'cmdline').read_bytes()[:100]!r}")
    return found


def test_down_leaves_no_process(stack: Any, first: Any) -> None:
    """Before it the stack's processes are there, after it none of them is."""
    assert first
    assert len(related(stack.var)) > 5
    stack.make("down")
    assert related(stack.var) == []


def test_the_checkout_is_as_it_was(stack: Any, first: Any, status: str) -> None:
    """Neither setup, training, stack nor runs left anything that git sees."""
    assert first
    assert status == stack.git_status
