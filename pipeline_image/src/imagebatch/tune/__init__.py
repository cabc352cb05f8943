"""`imagebatch tune`: the settings that suit this machine and model, found by measuring."""

from imagebatch.tune.command import tune

__all__ = ["tune"]
