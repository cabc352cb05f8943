"""Libraries that are imported when they are used, or not at all, though another library names them.

Great Expectations imports SciPy's statistics and Altair for expectations that no suite here has. Measured in
alternating rounds on two cores, medians of the pairs: a check of 300 images (7 to 8 s of CPU time) costs 3.1
s more without this module, a run with its two checks (12 to 16 s) 4.0 s more. Below 2 s a check it should go.

The standard library's `importlib.util.LazyLoader` does not help: it loads at the first look at any attribute,
and `inspect` looks at the `__file__` of every module there is.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from typing_extensions import override


class _LateModule(types.ModuleType):
    """Stands in for a module until something of it is used."""

    @override
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks at modules, such as `inspect`, does not use them
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(vars(module))
        return getattr(module, name)


def import_late(names: Iterable[str]) -> None:
    """Let modules be imported by whoever uses them first; those imported or missing stay as they are.

    Args:
        names: Full names; the packages that they are in are imported.
    """
    for name in names:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is None:
            continue
        module = _LateModule(name)
        module.__spec__, module.__file__ = spec, spec.origin
        if spec.submodule_search_locations is not None:
            module.__path__ = spec.submodule_search_locations
        sys.modules[name] = module


@contextlib.contextmanager
def not_installed(names: Iterable[str]) -> Iterator[None]:
    """Let optional libraries look, within the block, as if they were not installed.

    What is imported within the block takes its own path for a missing library (`except ImportError`), and
    afterwards everybody finds them again. No other thread may import them meanwhile.

    Args:
        names: Full names of packages; those imported already stay as they are.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes Python's import raise ModuleNotFoundError
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
