"""Score images in bulk with a served model, and prove that none was lost."""

from importlib.metadata import version

__version__ = version("imagebatch")
