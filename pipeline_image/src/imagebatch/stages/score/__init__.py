"""Second stage: ask the model API about every image of a shard."""

from imagebatch.stages.score.stage import score
from imagebatch.stages.score.stream import ShardScore

__all__ = ["ShardScore", "score"]
