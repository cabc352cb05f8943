"""A package, so that what is started as `python -m tests.system.chaos` finds its own folder first."""
