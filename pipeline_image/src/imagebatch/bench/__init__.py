"""`imagebatch bench`: what this machine could do with this model, and how much of it a run gets."""

from imagebatch.bench.command import bench

__all__ = ["bench"]
