"""First stage: list the input, hash it, read image headers, plan shards, pin the model."""

from imagebatch.stages.preprocess.stage import preprocess

__all__ = ["preprocess"]
